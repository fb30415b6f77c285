"""`priority=` and long items: which worker gets which item while all are full."""

from __future__ import annotations

from resilient_scoop.core.events import Tick
from resilient_scoop.wire import messages as wire
from tests.unit.bench import ORIGIN, PLAIN, W1, W2, Bench, calls, granted, outcomes, part, sent

URGENT = wire.Define(b"urgent", b"urgent", "m:urgent", b"code", wire.Options(priority=5))
MORE_URGENT = wire.Define(b"more", b"more", "m:more", b"code", wire.Options(priority=9))


def full() -> tuple[Bench, wire.Attempt]:
    """Return a broker whose worker holds as many items of a long batch as it may."""
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
    # Given a full worker, and many urgent items
    bench, root = full()
    actions = bench.tell(ORIGIN, URGENT, *calls(part(1, 0, 50, fn=URGENT.fn), attempt=root))
    assert len(granted(actions, W1)) == 2  # the limit for an unknown function

    # When there is a still more urgent item, then it waits for the first of them
    more = bench.tell(ORIGIN, MORE_URGENT, *calls(part(2, 0, 9, fn=b"more"), attempt=root))
    assert granted(more, W1) == []
    first = granted(actions, W1)[0]
    task = wire.Attempt(1, first.no)
    done = bench.tell(W1, outcomes(1, first.start, first.start + 1, fn=URGENT.fn, task=task))
    assert [task.call for task in granted(done, W1)][:1] == [2]


def test_equally_urgent_items_wait_for_room() -> None:
    bench, root = full()

    actions = bench.tell(ORIGIN, *calls(part(1, 0, 1), attempt=root))

    assert granted(actions, W1) == []


def test_no_item_is_queued_behind_a_long_item() -> None:
    # Given a worker that has reported nothing about its items for longer than the prefetch time
    bench, root = full()
    bench.now += 1.5

    # When an urgent item arrives, then that worker does not get it
    actions = bench.tell(ORIGIN, URGENT, *calls(part(1, 0, 1, fn=URGENT.fn), attempt=root))
    assert granted(actions, W1) == []

    # And the items queued there come back, lease by lease, except the running one
    (first,) = sent(actions, W1, wire.Retract)
    actions = bench.tell(W1, wire.Returned(first.attempt, 1))
    (second,) = sent(actions, W1, wire.Retract)
    actions = bench.tell(W1, wire.Returned(second.attempt, 1))
    assert granted(actions, W1) == []

    # Then the first free worker begins with the urgent item
    done = bench.tell(W1, outcomes(0, 0, 1, task=first.attempt))
    assert [task.call for task in granted(done, W1)][:1] == [1]


def test_a_worker_asked_once_is_not_asked_again() -> None:
    bench, _ = full()
    bench.now += 1.5
    asked = [sent(bench.feed(Tick()), W1, wire.Retract) for _ in range(5)]

    assert [len(each) for each in asked] == [1, 1, 0, 0, 0]


def test_an_idle_worker_gets_queued_items_but_no_started_ones() -> None:
    # Given two items of an unknown function with one worker
    bench = Bench()
    root = bench.begin(W1)
    actions = bench.tell(ORIGIN, PLAIN, *calls(part(0, 0, 2), attempt=root))
    attempts = [wire.Attempt(1, task.no) for task in granted(actions, W1)]

    # When another worker arrives, then the second item is requested at once
    (retract,) = sent(bench.arrive(W2), W1, wire.Retract)
    assert retract.attempt == attempts[1]


def test_an_item_that_comes_back_goes_before_items_that_were_called_later() -> None:
    # Given a worker with a long item and one behind it, and an item that waits for room
    bench = Bench()
    root = bench.begin(W1)
    actions = bench.tell(ORIGIN, PLAIN, *calls(part(0, 0, 1), attempt=root))
    actions += bench.tell(ORIGIN, *calls(part(1, 0, 1), attempt=root))
    long, behind = (wire.Attempt(1, task.no) for task in granted(actions, W1))
    assert granted(bench.tell(ORIGIN, *calls(part(2, 0, 1), attempt=root)), W1) == []

    # When the item behind is taken back, and the long one ends
    bench.now += 1.5
    bench.feed(Tick())
    (retract,) = sent(bench.tell(W1, wire.Returned(long, 1)), W1, wire.Retract)
    assert retract.attempt == behind
    assert granted(bench.tell(W1, wire.Returned(behind, 0)), W1) == []
    done = bench.tell(W1, outcomes(0, 0, 1, task=long))

    # Then it is the next one (Q4)
    assert [task.call for task in granted(done, W1)][:1] == [1]
