"""The broker machine in virtual time: facts, grants, cancellations, queues."""

from __future__ import annotations

from msgspec.structs import replace

from resilient_scoop.core.events import Interrupt, Offer, Put, Send, Table
from resilient_scoop.ids import ROOT, item_path
from resilient_scoop.wire import messages as wire
from tests.unit.bench import (
    AGENT,
    ORIGIN,
    PLAIN,
    W1,
    W2,
    Bench,
    calls,
    grant_one,
    granted,
    lost,
    outcomes,
    part,
    reported_error,
    sent,
)


def test_an_outcome_is_recorded_before_it_is_sent_to_its_parent() -> None:
    # Given an item that runs
    bench = Bench()
    attempt = grant_one(bench, W1)

    # When its outcome arrives
    actions = bench.tell(W1, outcomes(0, 0, 1, task=attempt))

    # Then one record is forced, and the message to the parent waits for its commit
    (put,) = [action for action in actions if isinstance(action, Put)]
    assert put.forced
    assert put.table is Table.LOG
    (send,) = [a for a in actions if isinstance(a, Send | Offer) and a.to == ORIGIN]
    assert isinstance(send, Send)
    assert send.frames == [put.value]


def test_a_second_outcome_of_an_item_changes_nothing() -> None:
    # Given an item whose outcome is known
    bench = Bench()
    attempt = grant_one(bench, W1)
    bench.tell(W1, outcomes(0, 0, 1, task=attempt))

    # When it arrives again, from the same worker and from another one, then nothing is recorded or
    # sent
    assert bench.tell(W1, outcomes(0, 0, 1, task=attempt)) == []
    bench.arrive(W2)
    assert bench.tell(W2, outcomes(0, 0, 1)) == []


def test_retries_are_counted_once_and_stay_known() -> None:
    bench = Bench()
    attempt = grant_one(bench, W1)
    (outcome,) = outcomes(0, 0, 1, task=attempt).items
    message = wire.Outcomes(ROOT, [replace(outcome, again=2)])

    for _ in range(2):
        bench.tell(W1, message)
    assert bench.broker.state.tally.counts.retried == 2
    assert bench.again().broker.state.tally.counts.retried == 2


def test_two_outcomes_of_one_item_in_one_message_count_once() -> None:
    bench = Bench()
    attempt = grant_one(bench, W1)
    twice = outcomes(0, 0, 1, task=attempt)

    bench.tell(W1, wire.Outcomes(ROOT, twice.items * 2))

    (record,) = [r for r in bench.logged() if isinstance(r, wire.Outcomes)]
    assert len(record.items) == 1
    assert bench.broker.state.items_done == 1


def test_an_outcome_of_other_arguments_is_ignored() -> None:
    bench = Bench()
    attempt = grant_one(bench, W1)

    actions = bench.tell(W1, outcomes(0, 0, 1, salt=9, task=attempt))

    assert not [action for action in actions if isinstance(action, Put)]
    assert not sent(actions, ORIGIN, wire.Outcomes)


def test_a_worker_that_computes_a_finished_item_is_told_to_stop() -> None:
    # Given an item that moved to another worker when its own became silent
    bench = Bench()
    attempt = grant_one(bench, W1)
    bench.arrive(W2)
    (task,) = granted(bench.wait(11, vouched=[ORIGIN, W2]), W2)

    # When the first worker finishes it
    actions = bench.tell(W1, outcomes(0, 0, 1, task=attempt))

    # Then the second worker is told to stop
    assert [d.attempts for d in sent(actions, W2, wire.Drop)] == [[wire.Attempt(1, task.no)]]


def test_a_fresh_item_that_is_requested_twice_is_computed_once() -> None:
    # Given an item that a changed script has requested again, and that is done
    bench = Bench()
    root = bench.begin(W1)
    bench.tell(ORIGIN, PLAIN, *calls(part(0, 0, 1), attempt=root))
    bench.tell(W1, outcomes(0, 0, 1))
    fresh = calls(part(0, 0, 1, salt=3, fresh=True), attempt=root)
    bench.tell(ORIGIN, *fresh)
    bench.tell(W1, outcomes(0, 0, 1, salt=3))

    # When the next attempt requests it again, having seen only the first outcome
    actions = bench.tell(ORIGIN, *fresh)

    # Then it is not computed again
    assert not granted(actions, W1)
    assert bench.broker.scheduler.ready == 0


def test_the_end_of_a_parent_drops_its_descendants() -> None:
    # Given an item that has become a parent, with a child that runs
    bench = Bench()
    attempt = grant_one(bench, W1, W2)
    path = item_path(ROOT, 0, 0)
    actions = bench.tell(
        W1, wire.Parked(attempt, 0), *calls(part(0, 0, 1), parent=path, attempt=attempt)
    )
    assert granted(actions, W1) or granted(actions, W2)

    # When it ends without waiting
    actions = bench.tell(W1, outcomes(0, 0, 1, task=attempt))

    # Then the child is stopped, and no record of it is kept
    assert bench.broker.scheduler.leases == {}
    assert path not in bench.broker.state.parents
    assert {r.parent for r in bench.logged()} == {ROOT}


def test_a_cancellation_of_an_item_without_holder_succeeds_and_stays() -> None:
    # Given an item that waits for a worker
    bench = Bench()
    root = bench.begin()
    bench.tell(ORIGIN, PLAIN, *calls(part(0, 0, 1), attempt=root))
    cancel = wire.Cancel(ROOT, root, 0, 0)

    # When it is cancelled, and the link, which has lost the answer, repeats the question
    first = bench.tell(ORIGIN, cancel)
    again = bench.tell(ORIGIN, cancel)

    # Then the answer is the same
    assert [a.cancelled for a in sent(first, ORIGIN, wire.CancelAnswer)] == [True]
    assert [a.cancelled for a in sent(again, ORIGIN, wire.CancelAnswer)] == [True]
    assert reported_error(bench) == "cancelled"


def test_a_broker_with_a_full_disk_grants_nothing_and_keeps_its_state() -> None:
    bench = Bench()
    root = bench.begin(W1)
    bench.broker.busy_disk = True

    actions = bench.tell(ORIGIN, PLAIN, *calls(part(0, 0, 1), attempt=root))
    assert not granted(actions, W1)

    bench.broker.busy_disk = False
    assert [task.start for task in granted(bench.wait(1), W1)] == [0]


def test_an_idle_worker_gets_items_that_another_has_not_begun() -> None:
    # Given a worker that holds more than it can begin
    bench = Bench()
    root = bench.begin(W1)
    actions = bench.tell(ORIGIN, PLAIN, *calls(part(0, 0, 2), attempt=root))
    tasks = granted(actions, W1)

    # When another worker arrives without items
    actions = bench.arrive(W2)

    # Then the first is asked to give items back, and the second gets these
    (retract,) = sent(actions, W1, wire.Retract)
    index = next(t.start for t in tasks if t.no == retract.attempt.no)
    actions = bench.tell(W1, wire.Returned(retract.attempt, index))
    assert [task.start for task in granted(actions, W2)] == [index]


def test_an_interrupted_broker_stops_all_processes() -> None:
    bench = Bench()
    bench.begin(W1)

    actions = bench.feed(Interrupt("asked"))

    assert [stop.reason for stop in sent(actions, W1, wire.Stop)] == ["asked"]
    assert [stop.reason for stop in sent(bench.arrive(W2), W2, wire.Stop)] == ["asked"]


def test_a_ready_parent_runs_before_its_siblings() -> None:
    # Given a batch of three whose last item has a history, all of which must run again
    bench = Bench()
    root = bench.begin(W1)
    actions = bench.tell(ORIGIN, PLAIN, *calls(part(0, 0, 3), attempt=root))
    tasks = granted(actions, W1)
    while len(tasks) < 3:
        done = tasks[0]
        reported = outcomes(0, done.start, done.start + 1, task=wire.Attempt(1, done.no))
        tasks = tasks[1:] + granted(bench.tell(W1, reported), W1)
        if any(task.start == 2 for task in tasks):
            break
    attempt = next(wire.Attempt(1, task.no) for task in tasks if task.start == 2)
    path = item_path(ROOT, 0, 2)
    bench.tell(W1, *calls(part(0, 0, 1), parent=path, attempt=attempt), wire.Parked(attempt, 2))

    # When its worker is lost and another one arrives
    bench.tell(AGENT, lost(W1))
    actions = bench.arrive(W2)

    # Then the parent is the first item that it gets
    first = granted(actions, W2)[0]
    assert (first.parent, first.start, first.replay) == (ROOT, 2, True)


def test_items_queued_after_a_continued_parent_move_to_an_idle_worker() -> None:
    # Given a worker with a parent that waits and two more items, and another one that is idle
    bench = Bench()
    attempt = grant_one(bench, W1)
    path = item_path(ROOT, 0, 0)
    root = bench.broker.members.root
    assert root is not None
    bench.tell(W1, *calls(part(0, 0, 1), parent=path, attempt=attempt), wire.Parked(attempt, 0))
    (peer,) = bench.broker.scheduler.workers.values()
    waiting = peer.items

    # When the parent continues and computes, then it counts as busy again, and others can get the
    # rest
    bench.tell(W1, wire.Parked(attempt, 0, parked=False))
    assert peer.items == waiting + 1
    bench.arrive(W2)
    actions = bench.wait(2, vouched=[ORIGIN, W1, W2])
    assert [each.attempt for each in sent(actions, W1, wire.Retract)]

    # And when it waits again, it does not count
    bench.tell(W1, wire.Parked(attempt, 0))
    assert peer.items == waiting
