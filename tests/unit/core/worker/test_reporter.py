"""Progress reports of a worker: limited in rate, the last one kept, none of ended items."""

from __future__ import annotations

from resilient_scoop.core.facts.intervals import Intervals
from resilient_scoop.core.worker.reporter import KEEP_S, Reporter
from resilient_scoop.core.worker.worker import Work
from resilient_scoop.ids import ROOT
from resilient_scoop.wire import messages as wire
from tests.unit.bench import FN, digests

PATH = "0.0[0]"
ATTEMPT = wire.Attempt(1, 1)


def make_work(resume: bytes = b"", tries: int = 0) -> Work:
    task = wire.Task(
        1, ROOT, 0, 0, FN, digests(0), [b"arg"], tries=tries, resume=resume
    )  # fmt: skip
    return Work(ATTEMPT, task, 1, 1, Intervals([(0, 1)]), 0)


def progress(done: int) -> wire.Progress:
    return wire.Progress(ROOT, ATTEMPT, 0, 0, FN, digests(0), done, 10, b"at %d" % done)


def put(reporter: Reporter, work: Work, done: int, now: float) -> bool:
    return reporter.put(PATH, work, 0, progress(done), now)


def heard(frames: list[bytes]) -> list[float]:
    messages = [wire.decode_up(frame) for frame in frames]
    return [each.done for each in messages if isinstance(each, wire.Progress)]


def test_the_first_progress_report_is_due_at_once_and_the_next_after_an_interval() -> None:
    reporter, work = Reporter(), make_work()
    assert put(reporter, work, 1, 10.0)
    assert heard(reporter.due(10.0)) == [1]

    assert not put(reporter, work, 2, 10.1)
    assert not put(reporter, work, 3, 10.2)
    assert heard(reporter.due(10.3)) == []
    assert heard(reporter.due(10.0 + KEEP_S)) == [3]
    assert heard(reporter.due(20.0)) == []


def test_the_last_progress_report_is_sent_at_once_at_a_stop() -> None:
    reporter, work = Reporter(), make_work()
    put(reporter, work, 1, 10.0)
    reporter.due(10.0)
    put(reporter, work, 2, 10.1)

    assert heard(reporter.due(10.2, everything=True)) == [2]


def test_no_progress_is_sent_for_an_item_that_has_ended_or_was_dropped() -> None:
    for end in ("done", "dropped"):
        reporter, work = Reporter(), make_work()
        put(reporter, work, 1, 10.0)
        if end == "done":
            work.left.discard(0, 1)
        else:
            work.dropped = True

        assert reporter.due(10.0) == []
        assert not reporter.items


def test_a_retry_in_the_same_worker_finds_the_state_of_the_try_before() -> None:
    reporter, work = Reporter(), make_work(resume=b"from the journal", tries=2)
    assert reporter.given(PATH, work) == b"from the journal"
    assert reporter.resume(PATH, work, 0)
    assert not reporter.resume(PATH, work, 0)

    put(reporter, work, 4, 10.0)
    assert reporter.given(PATH, work) == b"from the journal"
    reporter.try_again(PATH, work, 0)

    assert reporter.given(PATH, work) == b"at 4"
    assert reporter.tries(PATH, work) == 1
    assert reporter.resume(PATH, work, 0)


def test_a_try_that_saved_nothing_leaves_the_state_as_it_was() -> None:
    reporter, work = Reporter(), make_work(resume=b"from the journal")
    reporter.try_again(PATH, work, 0)

    assert reporter.given(PATH, work) == b"from the journal"


def test_another_attempt_of_the_same_item_begins_with_the_state_of_its_own_task() -> None:
    reporter, first = Reporter(), make_work()
    put(reporter, first, 4, 10.0)

    second = make_work(resume=b"at 3")

    assert reporter.given(PATH, second) == b"at 3"
    assert reporter.payload(PATH, second) == b"at 3"
    assert reporter.tries(PATH, second) == 0


def test_payloads_are_made_as_often_as_their_cost_permits() -> None:
    reporter, work = Reporter(), make_work()
    assert not reporter.is_too_soon(PATH, work, 10.0)
    reporter.hold_off(PATH, work, 0, 12.0)

    assert reporter.is_too_soon(PATH, work, 11.9)
    assert not reporter.is_too_soon(PATH, work, 12.0)
