"""`priority=` and long items: what goes where while all workers are full."""

from __future__ import annotations

from resilient_scoop.core.events import Tick
from resilient_scoop.wire import messages as wire
from tests.unit.bench import ORIGIN, PLAIN, W1, W2, Bench, calls, granted, outcomes, part, sent

URGENT = wire.Define(b"urgent", b"urgent", "m:urgent", b"code", wire.Options(priority=5))
MORE_URGENT = wire.Define(b"more", b"more", "m:more", b"code", wire.Options(priority=9))


def full() -> tuple[Bench, wire.Attempt]:
    """Return a broker whose worker holds all that it may of a long batch."""
    bench = Bench()
    root = bench.begin(W1)
    bench.tell(ORIGIN, PLAIN, *calls(part(0, 0, 50), attempt=root))
    assert bench.broker.scheduler.ready
    return bench, root


def test_more_urgent_work_is_granted_to_a_full_worker() -> None:
    bench, root = full()

    actions = bench.tell(ORIGIN, URGENT, *calls(part(1, 0, 1, fn=URGENT.fn), attempt=root))

    assert [(task.call, task.start) for task in granted(actions, W1)] == [(1, 0)]


def test_a_full_worker_gets_at_most_its_normal_amount_of_urgent_work() -> None:
    # Given a full worker, and much that is urgent
    bench, root = full()
    actions = bench.tell(ORIGIN, URGENT, *calls(part(1, 0, 50, fn=URGENT.fn), attempt=root))
    assert len(granted(actions, W1)) == 2  # as many as of an unknown function at any time

    # When there is something yet more urgent, then it waits for the first of them
    more = bench.tell(ORIGIN, MORE_URGENT, *calls(part(2, 0, 9, fn=b"more"), attempt=root))
    assert granted(more, W1) == []
    first = granted(actions, W1)[0]
    task = wire.Attempt(1, first.no)
    done = bench.tell(W1, outcomes(1, first.start, first.start + 1, fn=URGENT.fn, task=task))
    assert [task.call for task in granted(done, W1)][:1] == [2]


def test_equally_urgent_work_waits_for_room() -> None:
    bench, root = full()

    actions = bench.tell(ORIGIN, *calls(part(1, 0, 1), attempt=root))

    assert granted(actions, W1) == []


def test_no_item_is_queued_after_one_that_takes_long() -> None:
    # Given a worker that has said nothing of its items for longer than one is prefetched for
    bench, root = full()
    bench.now += 1.5

    # When something urgent comes, then it does not go there
    actions = bench.tell(ORIGIN, URGENT, *calls(part(1, 0, 1, fn=URGENT.fn), attempt=root))
    assert granted(actions, W1) == []

    # And what was queued there comes back, lease by lease, the one under way excepted
    (first,) = sent(actions, W1, wire.Retract)
    actions = bench.tell(W1, wire.Returned(first.attempt, 1))
    (second,) = sent(actions, W1, wire.Retract)
    actions = bench.tell(W1, wire.Returned(second.attempt, 1))
    assert granted(actions, W1) == []

    # Then the first worker that is free begins with what is urgent
    done = bench.tell(W1, outcomes(0, 0, 1, task=first.attempt))
    assert [task.call for task in granted(done, W1)][:1] == [1]


def test_a_worker_asked_once_is_not_asked_again() -> None:
    bench, _ = full()
    bench.now += 1.5
    asked = [sent(bench.feed(Tick()), W1, wire.Retract) for _ in range(5)]

    assert [len(each) for each in asked] == [1, 1, 0, 0, 0]


def test_an_idle_worker_gets_queued_items_and_no_started_ones() -> None:
    # Given two items of an unknown function with one worker
    bench = Bench()
    root = bench.begin(W1)
    actions = bench.tell(ORIGIN, PLAIN, *calls(part(0, 0, 2), attempt=root))
    attempts = [wire.Attempt(1, task.no) for task in granted(actions, W1)]

    # When another worker comes, then the second is asked for at once
    (retract,) = sent(bench.arrive(W2), W1, wire.Retract)
    assert retract.attempt == attempts[1]
