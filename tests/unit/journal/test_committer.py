"""Group commit: which turns share a transaction, which wait, and what a failure does."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence

import pytest

from resilient_scoop.core.events import Change, Erase, Put, Table
from resilient_scoop.errors import InvariantError, JournalError, JournalFullError
from resilient_scoop.journal import committer as module
from resilient_scoop.journal.committer import Committer

LONG_S = 10.0


def put(key: bytes, *, forced: bool = True) -> Change:
    return Put(Table.LOG, key, b"v", forced)


class Disk:
    """A journal whose commits wait until the test continues them, and fail on request."""

    def __init__(self) -> None:
        self.commits: list[list[Change]] = []
        self.errors: list[JournalError] = []
        self.tries = 0
        self.begun = threading.Event()
        self.may_end = threading.Event()
        self.may_end.set()

    def commit(self, changes: Sequence[Change]) -> None:
        self.tries += 1
        self.begun.set()
        assert self.may_end.wait(LONG_S)
        if self.errors:
            raise self.errors.pop(0)
        self.commits.append(list(changes))


class Bench:
    """A committer on that disk, and its reports."""

    def __init__(self) -> None:
        self.disk = Disk()
        self.news = threading.Semaphore(0)
        self.committer = Committer(self.disk, self.news.release)

    def wait_for_news(self) -> None:
        assert self.news.acquire(timeout=LONG_S)


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    yield bench
    bench.disk.may_end.set()
    bench.committer.close()


def test_a_forced_turn_is_committed_at_once_and_reported(bench: Bench) -> None:
    bench.committer.put(1, [put(b"a")])
    bench.wait_for_news()
    assert (bench.committer.committed, bench.committer.queued_bytes) == (1, 0)


def test_turns_that_arrive_during_a_commit_share_the_next(bench: Bench) -> None:
    # Given a slow commit
    bench.disk.may_end.clear()
    bench.committer.put(1, [put(b"1")])
    assert bench.disk.begun.wait(LONG_S)

    # When more turns arrive
    for turn in range(2, 100):
        bench.committer.put(turn, [put(b"%d" % turn)])
    assert bench.committer.committed == 0
    bench.disk.may_end.set()

    # Then they go into one transaction, in order
    assert bench.committer.flush(LONG_S)
    assert bench.disk.commits == [[put(b"1")], [put(b"%d" % turn) for turn in range(2, 100)]]


def test_unforced_turns_wait_for_a_forced_one(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "HOLD_S", 1000.0)
    bench.committer.put(1, [put(b"1", forced=False), Erase(Table.ARGS, b"x")])
    bench.committer.put(2, [put(b"2", forced=False)])
    assert bench.committer.committed == 0

    bench.committer.put(3, [put(b"3")])
    bench.wait_for_news()
    assert bench.committer.committed == 3
    assert len(bench.disk.commits) == 1


def test_unforced_turns_are_committed_soon_on_request(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "HOLD_S", 1000.0)
    bench.committer.put(1, [put(b"1", forced=False)])
    assert bench.committer.committed == 0

    bench.committer.hurry()
    bench.wait_for_news()
    assert bench.committer.committed == 1
    bench.committer.hurry()  # there is no reason to hurry

    bench.committer.put(2, [put(b"2", forced=False)])
    assert bench.committer.committed == 1, "the hurry was for what was there"


def test_unforced_turns_do_not_wait_forever(bench: Bench) -> None:
    bench.committer.put(1, [put(b"1", forced=False)])
    bench.wait_for_news()
    assert bench.committer.committed == 1


def test_many_unforced_changes_do_not_wait(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HOLD_S", 1000.0)
    bench.committer.put(1, [put(b"1", forced=False)] * module.HOLD_CHANGES_MAX)
    bench.wait_for_news()
    assert bench.committer.committed == 1


def test_a_turn_without_changes_is_reported_in_its_order(bench: Bench) -> None:
    bench.committer.put(1, [])
    assert bench.committer.flush(LONG_S)
    assert (bench.committer.committed, bench.disk.commits) == (1, [])


def test_groups_of_turns_are_limited_in_size(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "GROUP_CHANGES_MAX", 3)
    bench.disk.may_end.clear()
    bench.committer.put(1, [put(b"1")])
    assert bench.disk.begun.wait(LONG_S)
    for turn in range(2, 7):
        bench.committer.put(turn, [put(b"%d" % turn)] * 2)
    bench.disk.may_end.set()
    assert bench.committer.flush(LONG_S)
    assert [len(commit) for commit in bench.disk.commits] == [1, 2, 2, 2, 2, 2]


def test_all_turns_wait_for_space_and_then_continue_by_themselves(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a disk that is full three times over
    monkeypatch.setattr(module, "RETRY_S", 0.001)
    bench.disk.errors = [JournalFullError("d", "a commit", "full")] * 3
    bench.disk.may_end.clear()
    bench.committer.put(1, [put(b"1")])
    bench.committer.put(2, [put(b"2")])
    assert bench.committer.queued_bytes > 0
    bench.disk.may_end.set()

    # Then this is reported, and when there is space, nothing is missing
    bench.wait_for_news()
    assert bench.committer.flush(LONG_S)
    assert [change for commit in bench.disk.commits for change in commit] == [put(b"1"), put(b"2")]
    assert (bench.committer.full, bench.committer.error) == (False, None)
    assert bench.disk.tries >= 4


def test_full_is_true_while_there_is_no_space_and_close_ends(bench: Bench) -> None:
    bench.disk.errors = [JournalFullError("d", "a commit", "full")] * 1000
    bench.committer.put(1, [put(b"1")])
    bench.wait_for_news()
    assert bench.committer.full
    assert not bench.committer.flush(0.001)
    bench.committer.close()
    assert (bench.committer.committed, bench.disk.commits) == (0, [])


def test_after_an_error_nothing_is_written(bench: Bench) -> None:
    error = JournalError("d", "a commit", "input/output error")
    bench.disk.errors = [error]
    bench.committer.put(1, [put(b"1")])
    bench.wait_for_news()
    assert bench.committer.error is error
    for use in (lambda: bench.committer.put(2, [put(b"2")]), lambda: bench.committer.flush(1.0)):
        with pytest.raises(JournalError):
            use()
    assert (bench.committer.committed, bench.disk.tries) == (0, 1)


def test_close_commits_waiting_turns(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HOLD_S", 1000.0)
    bench.committer.put(1, [put(b"1", forced=False)])
    bench.committer.close()
    assert bench.committer.committed == 1


def test_turns_are_reported_in_order(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HOLD_S", 1000.0)
    bench.committer.put(2, [put(b"2", forced=False)])
    with pytest.raises(InvariantError, match="out of order"):
        bench.committer.put(2, [put(b"2")])


def test_an_idle_caller_commits_itself(bench: Bench) -> None:
    bench.committer.put(1, [put(b"a", forced=False)], here=True)  # may wait
    assert bench.committer.committed == 0
    bench.committer.put(2, [put(b"b")], here=True)
    assert bench.committer.committed == 2  # without a report: the caller knows it
    assert [len(each) for each in bench.disk.commits] == [2]
    assert not bench.news.acquire(blocking=False)


def test_a_caller_does_not_commit_while_the_writer_commits(bench: Bench) -> None:
    bench.disk.may_end.clear()
    bench.committer.put(1, [put(b"1")])
    assert bench.disk.begun.wait(LONG_S)
    bench.committer.put(2, [put(b"2")], here=True)  # would wait for the disk
    assert bench.committer.committed == 0
    bench.disk.may_end.set()
    assert bench.committer.flush(LONG_S)
    assert [len(each) for each in bench.disk.commits] == [1, 1]


def test_a_caller_does_not_commit_on_a_slow_disk(bench: Bench) -> None:
    bench.committer._mean_s = 2 * module.HERE_S_MAX
    bench.disk.may_end.clear()
    bench.committer.put(1, [put(b"1")], here=True)
    bench.disk.may_end.set()
    assert bench.committer.flush(LONG_S)


def test_a_commit_of_the_caller_without_space_is_passed_to_the_writer(bench: Bench) -> None:
    bench.disk.errors = [JournalFullError("/j", "a commit", "full"), JournalFullError("/j", "", "")]
    bench.committer.put(1, [put(b"1")], here=True)
    bench.wait_for_news()
    assert bench.committer.full
    bench.wait_for_news()
    assert (bench.committer.full, bench.committer.committed) == (False, 1)


def test_any_other_error_in_a_commit_of_the_caller_ends_the_writer(bench: Bench) -> None:
    bench.disk.errors = [JournalError("/j", "a commit", "I/O error")]
    bench.committer.put(1, [put(b"1")], here=True)
    assert isinstance(bench.committer.error, JournalError)
    with pytest.raises(JournalError):
        bench.committer.put(2, [put(b"2")])


def test_upkeep_runs_at_its_interval_and_never_during_a_commit() -> None:
    # Given a disk that detects a commit and a step of upkeep at the same time
    disk, news, tended = Disk(), threading.Semaphore(0), threading.Semaphore(0)
    inside = threading.Lock()

    def commit(changes: Sequence[Change]) -> None:
        assert inside.acquire(blocking=False)
        Disk.commit(disk, changes)
        inside.release()

    def tend() -> float:
        assert inside.acquire(blocking=False)
        tended.release()
        inside.release()
        return 0.0  # as often as possible

    disk.commit = commit  # type: ignore[method-assign]
    committer = Committer(disk, news.release, tend)

    # When turns come from two threads while there is always upkeep to do
    for turn in range(1, 200):
        committer.put(turn, [put(b"%d" % turn)], here=turn % 2 == 0)
    assert committer.flush(LONG_S)

    # Then both were done alternately
    assert committer.committed == 199
    for _ in range(10):
        assert tended.acquire(timeout=LONG_S)
    committer.close()
    assert committer.error is None


def test_an_error_of_the_upkeep_ends_the_committer() -> None:
    news = threading.Semaphore(0)

    def tend() -> float:
        raise JournalError("j", "a compaction", "Input/output error")

    committer = Committer(Disk(), news.release, tend)
    assert news.acquire(timeout=LONG_S)
    assert isinstance(committer.error, JournalError)
    with pytest.raises(JournalError):
        committer.put(1, [put(b"a")])
    committer.close()
