"""The broker machine: facts, grants, deaths, restarts, in virtual time."""

from __future__ import annotations

from resilient_scoop.core.events import GrantStored, Interrupt, Offer, Put, Send, Table
from resilient_scoop.ids import ROOT, PeerId, item_path
from resilient_scoop.wire import messages as wire
from resilient_scoop.wire.broker_errors import read_broker_error
from tests.unit.bench import (
    AGENT,
    FN,
    ONCE,
    ORIGIN,
    PLAIN,
    RISKY,
    W1,
    W2,
    W3,
    Bench,
    calls,
    digests,
    granted,
    outcomes,
    part,
    sent,
)


def told_error(bench: Bench, index: int = 0) -> str:
    """Return the kind of the error that the broker recorded for an item of the root's call 0."""
    for record in bench.logged():
        if isinstance(record, wire.Outcomes):
            for outcome in record.items:
                if outcome.start == index and outcome.failed:
                    return read_broker_error(outcome.values[0])[0]
    return "none"


def grant_one(bench: Bench, *workers: PeerId, fn: wire.Define = PLAIN) -> wire.Attempt:
    """Let one item run on the first of the workers; return its attempt."""
    root = bench.begin(*workers)
    actions = bench.tell(ORIGIN, fn, *calls(part(0, 0, 1, fn=fn.fn), attempt=root))
    (task,) = granted(actions, workers[0])
    return wire.Attempt(bench.broker.epoch, task.no)


def lost(peer: bytes, attempt: wire.Attempt | None = None, index: int = 0) -> wire.ProcessLost:
    return wire.ProcessLost(peer, -11, "crash", attempt, index)


def test_an_outcome_is_recorded_before_its_parent_is_told() -> None:
    # Given an item that runs
    bench = Bench()
    attempt = grant_one(bench, W1)

    # When its outcome comes
    actions = bench.tell(W1, outcomes(0, 0, 1, task=attempt))

    # Then one record is forced, and the parent is told by a message that waits for it
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

    # When it comes again, from there and from elsewhere, then nothing is recorded and nobody is
    # told
    assert bench.tell(W1, outcomes(0, 0, 1, task=attempt)) == []
    bench.arrive(W2)
    assert bench.tell(W2, outcomes(0, 0, 1)) == []


def test_two_outcomes_of_one_item_in_one_message_count_once() -> None:
    bench = Bench()
    attempt = grant_one(bench, W1)
    twice = outcomes(0, 0, 1, task=attempt)

    bench.tell(W1, wire.Outcomes(ROOT, twice.items * 2))

    (record,) = [r for r in bench.logged() if isinstance(r, wire.Outcomes)]
    assert len(record.items) == 1
    assert bench.broker.state.items_done == 1


def test_an_outcome_of_other_arguments_does_not_count() -> None:
    bench = Bench()
    attempt = grant_one(bench, W1)

    actions = bench.tell(W1, outcomes(0, 0, 1, salt=9, task=attempt))

    assert not [action for action in actions if isinstance(action, Put)]
    assert not sent(actions, ORIGIN, wire.Outcomes)


def test_a_dead_workers_items_move_and_only_the_one_on_the_cpu_is_blamed() -> None:
    # Given a worker that holds one item and has another one queued behind it
    bench = Bench()
    root = bench.begin(W1)
    actions = bench.tell(ORIGIN, PLAIN, *calls(part(0, 0, 2), attempt=root))
    tasks = granted(actions, W1)
    assert [task.start for task in tasks] == [0, 1]

    # When its agent says that it died with the first on the CPU, and another worker is there
    bench.tell(AGENT, lost(W1, wire.Attempt(1, tasks[0].no)))
    actions = bench.arrive(W2)

    # Then both run again, and one death is on record
    assert [task.start for task in granted(actions, W2)] == [0, 1]
    assert [(r.call, r.index) for r in bench.logged() if isinstance(r, wire.Crashed)] == [(0, 0)]


def test_an_item_that_kills_its_worker_three_times_fails_alone_even_over_a_restart() -> None:
    # Given an item that has killed two workers, and then a new broker
    bench = Bench()
    bench.begin(W1)
    root = bench.broker.ledger.root
    assert root is not None
    actions = bench.tell(ORIGIN, PLAIN, *calls(part(0, 0, 1), attempt=root[0]))
    for worker, successor in ((W1, W2), (W2, W3)):
        (task,) = granted(actions, worker)
        bench.tell(AGENT, lost(worker, wire.Attempt(1, task.no)))
        actions = bench.arrive(successor)
    bench = bench.again(adopt=False)

    # When it kills a third one
    bench.arrive(AGENT)
    bench.arrive(ORIGIN)
    actions = bench.arrive(W3)
    (grant,) = [action for action in actions if isinstance(action, GrantStored)]
    assert grant.tasks[0].tries == 2
    bench.tell(AGENT, lost(W3, wire.Attempt(2, grant.tasks[0].no)))

    # Then it has failed, and nothing is left to do
    assert told_error(bench) == "crashed"
    assert bench.broker.scheduler.ready == 0


def test_a_death_that_the_last_broker_did_not_hear_of_is_blamed_once() -> None:
    # Given an item that was on the CPU when the broker died, and then its worker did
    bench = Bench()
    bench.begin(W1)
    root = bench.broker.ledger.root
    assert root is not None
    (task,) = granted(bench.tell(ORIGIN, PLAIN, *calls(part(0, 0, 1), attempt=root[0])), W1)
    death = wire.ProcessLost(W1, -11, "crash", wire.Attempt(1, task.no), 0, task.parent, task.call)
    bench = bench.again(adopt=True)

    # When its agent tells the new broker of it, twice
    bench.arrive(AGENT)
    bench.tell(AGENT, death)
    bench.tell(AGENT, death)

    # Then it counts once
    assert len([each for each in bench.logged() if isinstance(each, wire.Crashed)]) == 1


def test_a_call_that_must_not_run_twice_is_journaled_before_it_is_granted() -> None:
    bench = Bench()
    root = bench.begin(W1)

    actions = bench.tell(ORIGIN, RISKY, *calls(part(0, 0, 1, fn=ONCE), attempt=root))

    intents = [r for r in bench.logged() if isinstance(r, wire.Intent)]
    assert [(i.call, i.start, i.count) for i in intents] == [(0, 0, 1)]
    assert [type(a) for a in actions if isinstance(a, Send | Offer) and a.to == W1] == [Send]


def test_a_call_that_must_not_run_twice_is_given_up_with_its_worker() -> None:
    bench = Bench()
    grant_one(bench, W1, W2, fn=RISKY)

    actions = bench.tell(AGENT, lost(W1))

    assert told_error(bench) == "lost"
    assert not granted(actions, W2)


def test_a_new_broker_gives_up_what_may_have_been_started() -> None:
    # Given a call that was granted when the broker died, and nobody who holds it
    bench = Bench()
    grant_one(bench, W1, fn=RISKY)
    bench = bench.again()

    # When the agent says that nothing is running
    bench.arrive(AGENT)

    # Then it is given up
    assert told_error(bench) == "lost"


def test_a_new_broker_leaves_a_worker_what_it_holds() -> None:
    # Given a worker that still runs an item of the old broker
    bench = Bench()
    attempt = grant_one(bench, W1)
    bench = bench.again()
    bench.arrive(AGENT, incarnations=[W1, W2])

    # When another one is there first, then it is given nothing while the first may come
    assert not granted(bench.arrive(W2), W2)

    # And when the first says what it holds, then it keeps it
    held = wire.Held(attempt, ROOT, 0, FN, [(0, 1)], digests(0))
    actions = bench.arrive(W1, held=[held])
    assert [w.dropped for w in sent(actions, W1, wire.Welcome)] == [[]]
    assert not [a for a in actions if isinstance(a, GrantStored)]


def test_a_new_broker_refuses_what_does_not_fit() -> None:
    bench = Bench()
    attempt = grant_one(bench, W1)
    bench = bench.again()
    bench.arrive(AGENT, incarnations=[W1])

    held = wire.Held(attempt, ROOT, 0, FN, [(0, 1)], digests(0, salt=5))
    actions = bench.arrive(W1, held=[held])

    assert [w.dropped for w in sent(actions, W1, wire.Welcome)] == [[attempt]]


def test_a_parent_is_not_adopted_behind_which_a_later_attempt_has_written() -> None:
    # Given a parent that lives on, unheard, on a worker that was taken for lost
    bench = Bench()
    first = grant_one(bench, W1)
    path = item_path(ROOT, 0, 0)
    bench.tell(W1, *calls(part(0, 0, 1), parent=path, attempt=first))
    bench.arrive(W2)
    bench.wait(11, vouched=[ORIGIN, W2])
    held_now = bench.broker.scheduler.leases.values()
    (lease,) = [each for each in held_now if each.batch.parent.path == ROOT]
    assert lease.peer.id == W2

    # When its next attempt was told something, and then there is a new broker
    told = wire.Observed(path, lease.attempt, [wire.Observation(0, "done", 1, b"1")])
    bench.tell(W2, told)
    bench = bench.again()
    held = wire.Held(first, ROOT, 0, FN, [(0, 1)], digests(0))
    actions = bench.arrive(W1, held=[held], waiting=[wire.Waiting(path, first)])

    # Then the first attempt is told to end, and the second goes on
    assert [each.dropped for each in sent(actions, W1, wire.Welcome)] == [[first]]
    held = wire.Held(lease.attempt, ROOT, 0, FN, [(0, 1)], digests(0))
    actions = bench.arrive(W2, held=[held], waiting=[wire.Waiting(path, lease.attempt)])
    assert [each.dropped for each in sent(actions, W2, wire.Welcome)] == [[]]


def test_a_silent_peer_is_lost_after_its_lease_and_heard_again() -> None:
    # Given a worker with an item, which nobody vouches for
    bench = Bench()
    attempt = grant_one(bench, W1)
    bench.arrive(W2)

    # When its lease is over, then its item moves
    actions = bench.wait(11, vouched=[ORIGIN, W2])
    assert [task.start for task in granted(actions, W2)] == [0]
    assert [d.attempts for d in sent(actions, W1, wire.Drop)] == [[attempt]]

    # And when its outcome comes after all, then it counts, and it is there again
    actions = bench.tell(W1, outcomes(0, 0, 1, task=attempt))
    assert sent(actions, ORIGIN, wire.Outcomes)
    assert W1 in bench.broker.ledger.peers


def test_an_origin_that_slept_goes_on_and_loses_no_word() -> None:
    # Given an origin that was silent for longer than its lease
    bench = Bench()
    root = bench.begin(W1)
    bench.wait(11, vouched=[W1])
    assert ORIGIN not in bench.broker.ledger.peers

    # When it calls after all, then that counts
    actions = bench.tell(ORIGIN, PLAIN, *calls(part(0, 0, 1), attempt=root))
    assert [task.start for task in granted(actions, W1)] == [0]


def test_nobody_is_lost_for_the_brokers_own_sleep() -> None:
    bench = Bench()
    bench.begin(W1)

    bench.now += 3600.0
    bench.wait(1)

    assert {ORIGIN, W1, AGENT} <= set(bench.broker.ledger.peers)


def test_an_older_attempt_of_a_parent_is_fenced() -> None:
    # Given an origin that was replaced
    bench = Bench()
    old = bench.begin(W1)
    successor = PeerId(b"Osecond..")
    bench.arrive(successor)

    # When the old one calls, then nothing is done, and it is told to stop
    actions = bench.tell(ORIGIN, PLAIN, *calls(part(0, 0, 1), attempt=old))
    assert not granted(actions, W1)
    assert [d.attempts for d in sent(actions, ORIGIN, wire.Drop)] == [[old]]


def test_an_origin_that_is_replaced_is_told_to_make_room() -> None:
    bench = Bench()
    old = bench.begin(W1)

    actions = bench.arrive(PeerId(b"Osecond.."))

    assert [d.attempts for d in sent(actions, ORIGIN, wire.Drop)] == [[old]]


def test_a_worker_that_computes_what_is_done_is_told_to_stop() -> None:
    # Given an item that moved to another worker when its own fell silent
    bench = Bench()
    attempt = grant_one(bench, W1)
    bench.arrive(W2)
    (task,) = granted(bench.wait(11, vouched=[ORIGIN, W2]), W2)

    # When the first one is done with it
    actions = bench.tell(W1, outcomes(0, 0, 1, task=attempt))

    # Then the second one need not be
    assert [d.attempts for d in sent(actions, W2, wire.Drop)] == [[wire.Attempt(1, task.no)]]


def test_a_fresh_item_that_is_asked_for_twice_is_computed_once() -> None:
    # Given an item that a changed script has asked for anew, and which is done
    bench = Bench()
    root = bench.begin(W1)
    bench.tell(ORIGIN, PLAIN, *calls(part(0, 0, 1), attempt=root))
    bench.tell(W1, outcomes(0, 0, 1))
    fresh = calls(part(0, 0, 1, salt=3, fresh=True), attempt=root)
    bench.tell(ORIGIN, *fresh)
    bench.tell(W1, outcomes(0, 0, 1, salt=3))

    # When the next attempt asks again, having seen only the first outcome
    actions = bench.tell(ORIGIN, *fresh)

    # Then it is not
    assert not granted(actions, W1)
    assert bench.broker.scheduler.ready == 0


def test_a_parents_end_drops_what_hangs_below_it() -> None:
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

    # Then the child is stopped and nothing of it is kept
    assert bench.broker.scheduler.leases == {}
    assert path not in bench.broker.state.parents
    assert {r.parent for r in bench.logged()} == {ROOT}


def test_a_cancellation_comes_in_time_for_what_nobody_has_and_stays_so() -> None:
    # Given an item that waits for a worker
    bench = Bench()
    root = bench.begin()
    bench.tell(ORIGIN, PLAIN, *calls(part(0, 0, 1), attempt=root))
    cancel = wire.Cancel(ROOT, root, 0, 0)

    # When it is cancelled, and the question comes again from a link that lost the answer
    first = bench.tell(ORIGIN, cancel)
    again = bench.tell(ORIGIN, cancel)

    # Then the answer is the same
    assert [a.cancelled for a in sent(first, ORIGIN, wire.CancelAnswer)] == [True]
    assert [a.cancelled for a in sent(again, ORIGIN, wire.CancelAnswer)] == [True]
    assert told_error(bench) == "cancelled"


def test_a_full_disk_hands_out_nothing_and_forgets_nothing() -> None:
    bench = Bench()
    root = bench.begin(W1)
    bench.broker.busy_disk = True

    actions = bench.tell(ORIGIN, PLAIN, *calls(part(0, 0, 1), attempt=root))
    assert not granted(actions, W1)

    bench.broker.busy_disk = False
    assert [task.start for task in granted(bench.wait(1), W1)] == [0]


def test_an_idle_worker_is_given_what_another_has_not_begun() -> None:
    # Given a worker that holds more than it can begin
    bench = Bench()
    root = bench.begin(W1)
    actions = bench.tell(ORIGIN, PLAIN, *calls(part(0, 0, 2), attempt=root))
    tasks = granted(actions, W1)

    # When another one comes that has nothing
    actions = bench.arrive(W2)

    # Then the first is asked to give back, and what it gives back moves
    (retract,) = sent(actions, W1, wire.Retract)
    index = next(t.start for t in tasks if t.no == retract.attempt.no)
    actions = bench.tell(W1, wire.Returned(retract.attempt, index))
    assert [task.start for task in granted(actions, W2)] == [index]


def test_an_interrupted_broker_sends_everybody_home() -> None:
    bench = Bench()
    bench.begin(W1)

    actions = bench.feed(Interrupt("asked"))

    assert [stop.reason for stop in sent(actions, W1, wire.Stop)] == ["asked"]
    assert [stop.reason for stop in sent(bench.arrive(W2), W2, wire.Stop)] == ["asked"]


def test_a_ready_parent_goes_before_its_siblings() -> None:
    # Given a batch of three whose last item has a history, all of them to do again
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

    # When its worker is lost and another one comes
    bench.tell(AGENT, lost(W1))
    actions = bench.arrive(W2)

    # Then the parent is the first thing that it is given
    first = granted(actions, W2)[0]
    assert (first.parent, first.start, first.replay) == (ROOT, 2, True)


def test_what_is_queued_behind_a_parent_that_goes_on_is_taken_over() -> None:
    # Given a worker with a parent that waits and two more items, and another one that is idle
    bench = Bench()
    attempt = grant_one(bench, W1)
    path = item_path(ROOT, 0, 0)
    root = bench.broker.ledger.root
    assert root is not None
    bench.tell(W1, *calls(part(0, 0, 1), parent=path, attempt=attempt), wire.Parked(attempt, 0))
    (peer,) = bench.broker.scheduler.workers.values()
    waiting = peer.items

    # When the parent goes on and computes, then it counts again, and others can have the rest
    bench.tell(W1, wire.Parked(attempt, 0, parked=False))
    assert peer.items == waiting + 1
    bench.arrive(W2)
    actions = bench.wait(2, vouched=[ORIGIN, W1, W2])
    assert [each.attempt for each in sent(actions, W1, wire.Retract)]

    # And when it waits again, it does not
    bench.tell(W1, wire.Parked(attempt, 0))
    assert peer.items == waiting
