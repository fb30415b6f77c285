"""The broker machine in virtual time, when processes die, become silent or come back."""

from __future__ import annotations

import pytest

from resilient_scoop.core.endings import SESSION_CLOSED
from resilient_scoop.core.events import GrantStored, Interrupt
from resilient_scoop.ids import ROOT, PeerId, item_path
from resilient_scoop.wire import messages as wire
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
    grant_one,
    granted,
    lost,
    outcomes,
    part,
    reported_error,
    sent,
)


def test_the_items_of_a_dead_worker_move_and_only_the_executing_one_is_blamed() -> None:
    # Given a worker that holds one item and has another one queued after it
    bench = Bench()
    root = bench.begin(W1)
    actions = bench.tell(ORIGIN, PLAIN, *calls(part(0, 0, 2), attempt=root))
    tasks = granted(actions, W1)
    assert [task.start for task in tasks] == [0, 1]

    # When its agent reports that it died while executing the first, and another worker has arrived
    bench.tell(AGENT, lost(W1, wire.Attempt(1, tasks[0].no)))
    actions = bench.arrive(W2)

    # Then both run again, and one death is recorded
    assert [task.start for task in granted(actions, W2)] == [0, 1]
    assert [(r.call, r.index) for r in bench.logged() if isinstance(r, wire.Crashed)] == [(0, 0)]


def test_an_item_that_kills_its_worker_three_times_fails_alone_even_after_a_broker_restart() -> (
    None
):
    # Given an item that has killed two workers, and then a new broker
    bench = Bench()
    bench.begin(W1)
    root = bench.broker.members.root
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
    assert reported_error(bench) == "crashed"
    assert bench.broker.scheduler.ready == 0


def test_a_death_that_the_last_broker_missed_counts_once() -> None:
    # Given an item that was executing when the broker died, and then its worker died
    bench = Bench()
    bench.begin(W1)
    root = bench.broker.members.root
    assert root is not None
    (task,) = granted(bench.tell(ORIGIN, PLAIN, *calls(part(0, 0, 1), attempt=root[0])), W1)
    death = wire.ProcessLost(W1, -11, "crash", wire.Attempt(1, task.no), 0, task.parent, task.call)
    bench = bench.again(adopt=True)

    # When its agent reports this death to the new broker, twice
    bench.arrive(AGENT)
    bench.tell(AGENT, death)
    bench.tell(AGENT, death)

    # Then it counts once
    assert len([each for each in bench.logged() if isinstance(each, wire.Crashed)]) == 1


def test_a_death_in_a_run_that_stops_is_blamed_and_no_later_broker_counts_it() -> None:
    bench = Bench()
    attempt = grant_one(bench, W1)
    bench.feed(Interrupt("handed over"))
    bench.tell(AGENT, lost(W1, attempt))
    assert [type(each) for each in bench.logged()][-1] is wire.Crashed
    assert bench.broker.state.tally.counts.crashes == 0
    assert bench.again().broker.state.tally.counts.crashes == 0


def test_a_new_broker_leaves_a_worker_what_it_holds() -> None:
    # Given a worker that still runs an item of the old broker
    bench = Bench()
    attempt = grant_one(bench, W1)
    bench = bench.again()
    bench.arrive(AGENT, incarnations=[W1, W2])

    # When another worker arrives first, then it gets nothing while the first may still arrive
    assert not granted(bench.arrive(W2), W2)

    # And when the first reports what it holds, then it keeps this
    held = wire.Held(attempt, ROOT, 0, FN, [(0, 1)], digests(0))
    actions = bench.arrive(W1, held=[held])
    assert [w.dropped for w in sent(actions, W1, wire.Welcome)] == [[]]
    assert not [a for a in actions if isinstance(a, GrantStored)]


def test_a_new_broker_refuses_held_items_that_do_not_fit() -> None:
    bench = Bench()
    attempt = grant_one(bench, W1)
    bench = bench.again()
    bench.arrive(AGENT, incarnations=[W1])

    held = wire.Held(attempt, ROOT, 0, FN, [(0, 1)], digests(0, salt=5))
    actions = bench.arrive(W1, held=[held])

    assert [w.dropped for w in sent(actions, W1, wire.Welcome)] == [[attempt]]


def test_a_parent_is_not_adopted_if_a_later_attempt_has_written() -> None:
    # Given a parent that continues on a worker that counts as lost
    bench = Bench()
    first = grant_one(bench, W1)
    path = item_path(ROOT, 0, 0)
    bench.tell(W1, *calls(part(0, 0, 1), parent=path, attempt=first))
    bench.arrive(W2)
    bench.wait(11, vouched=[ORIGIN, W2])
    held_now = bench.broker.scheduler.leases.values()
    (lease,) = [each for each in held_now if each.batch.parent.path == ROOT]
    assert lease.peer.id == W2

    # When its next attempt has received something, and then there is a new broker
    observed = wire.Observed(path, lease.attempt, [wire.Observation(0, "done", 1, b"1")])
    bench.tell(W2, observed)
    bench = bench.again()
    held = wire.Held(first, ROOT, 0, FN, [(0, 1)], digests(0))
    actions = bench.arrive(W1, held=[held], waiting=[wire.Waiting(path, first)])

    # Then the first attempt is told to end, and the second continues
    assert [each.dropped for each in sent(actions, W1, wire.Welcome)] == [[first]]
    held = wire.Held(lease.attempt, ROOT, 0, FN, [(0, 1)], digests(0))
    actions = bench.arrive(W2, held=[held], waiting=[wire.Waiting(path, lease.attempt)])
    assert [each.dropped for each in sent(actions, W2, wire.Welcome)] == [[]]


def test_a_silent_process_is_lost_after_its_lease_and_can_return() -> None:
    # Given a worker with an item, and no agent that vouches for it
    bench = Bench()
    attempt = grant_one(bench, W1)
    bench.arrive(W2)

    # When its lease ends, then its item moves
    actions = bench.wait(11, vouched=[ORIGIN, W2])
    assert [task.start for task in granted(actions, W2)] == [0]
    assert [d.attempts for d in sent(actions, W1, wire.Drop)] == [[attempt]]

    # And when its outcome arrives after all, then it counts, and the worker is back
    actions = bench.tell(W1, outcomes(0, 0, 1, task=attempt))
    assert sent(actions, ORIGIN, wire.Outcomes)
    assert W1 in bench.broker.members.peers


def test_an_origin_that_slept_continues_and_loses_no_message() -> None:
    # Given an origin that was silent for longer than its lease
    bench = Bench()
    root = bench.begin(W1)
    bench.wait(11, vouched=[W1])
    assert ORIGIN not in bench.broker.members.peers

    # When it makes a call after all, then the call counts
    actions = bench.tell(ORIGIN, PLAIN, *calls(part(0, 0, 1), attempt=root))
    assert [task.start for task in granted(actions, W1)] == [0]


def test_no_process_is_lost_because_the_broker_slept() -> None:
    bench = Bench()
    bench.begin(W1)

    bench.now += 3600.0
    bench.wait(1)

    assert {ORIGIN, W1, AGENT} <= set(bench.broker.members.peers)


def test_an_older_attempt_of_a_parent_is_fenced() -> None:
    # Given an origin that was replaced
    bench = Bench()
    old = bench.begin(W1)
    successor = PeerId(b"Osecond..")
    bench.arrive(successor)

    # When the old one makes a call, then the call is ignored, and the old one is told to stop
    actions = bench.tell(ORIGIN, PLAIN, *calls(part(0, 0, 1), attempt=old))
    assert not granted(actions, W1)
    assert [d.attempts for d in sent(actions, ORIGIN, wire.Drop)] == [[old]]


def test_a_replaced_origin_is_told_to_end() -> None:
    bench = Bench()
    old = bench.begin(W1)

    actions = bench.arrive(PeerId(b"Osecond.."))

    assert [d.attempts for d in sent(actions, ORIGIN, wire.Drop)] == [[old]]


@pytest.mark.parametrize(("node", "waits"), [("n0", True), (wire.PROGRAM, False)])
@pytest.mark.parametrize("why", ["asked", SESSION_CLOSED])
def test_a_stopped_broker_does_not_wait_for_the_program_of_a_session(
    node: str, why: str, *, waits: bool
) -> None:
    # Given a run of a script, or of a session's program
    bench = Bench()
    bench.arrive(AGENT)
    bench.tell(ORIGIN, wire.Hello("origin", node, "origin", 1))
    bench.arrive(W1)

    # When it is stopped
    actions = bench.feed(Interrupt(why))
    bench.tell(AGENT, lost(W1), wire.Bye())

    # Then all processes are told, except a program that has requested the stop; the program
    # outlives the run
    assert bool(sent(actions, ORIGIN, wire.Stop)) is (waits or why != SESSION_CLOSED)
    assert bench.broker.is_deserted is not waits


def with_a_running_call(*defines: wire.Define, agent: bool = True) -> tuple[Bench, wire.Attempt]:
    """Return a resumed broker whose worker runs a journaled call, and the script's attempt."""
    bench = Bench()
    root = bench.begin(W1)
    bench.tell(ORIGIN, PLAIN, *calls(part(0, 0, 1), attempt=root))
    bench = bench.again(adopt=False)
    if agent:
        bench.arrive(AGENT)
    bench.arrive(ORIGIN)
    bench.arrive(W1)
    bench.tell(ORIGIN, PLAIN, *defines)
    assert bench.broker.members.root is not None
    return bench, bench.broker.members.root[0]


def test_a_worker_that_runs_a_replaced_call_is_ended_without_blame() -> None:
    bench, root = with_a_running_call()
    (lease,) = bench.broker.scheduler.leases.values()

    actions = bench.tell(ORIGIN, *calls(part(0, 0, 1, salt=9), attempt=root))

    (kill,) = sent(actions, AGENT, wire.Kill)
    assert (kill.incarnation, kill.reason, kill.attempt) == (W1, "asked", lease.attempt)


def test_the_same_call_made_again_ends_no_worker() -> None:
    bench, root = with_a_running_call()
    actions = bench.tell(ORIGIN, *calls(part(0, 0, 1), attempt=root))
    assert sent(actions, AGENT, wire.Kill) == []


def test_a_worker_of_a_replaced_call_is_ended_when_its_agent_arrives() -> None:
    bench, root = with_a_running_call(agent=False)
    bench.tell(ORIGIN, *calls(part(0, 0, 1, salt=9), attempt=root))
    assert len(sent(bench.arrive(AGENT), AGENT, wire.Kill)) == 1
    assert sent(bench.arrive(AGENT), AGENT, wire.Kill) == []


def test_a_worker_with_a_call_that_must_not_start_twice_continues() -> None:
    bench, root = with_a_running_call(RISKY)
    more = part(0, 0, 1, salt=9), part(1, 0, 1, fn=ONCE)
    bench.tell(ORIGIN, *calls(part(1, 0, 1, fn=ONCE), attempt=root))
    assert {lease.fn for lease in bench.broker.scheduler.leases.values()} == {FN, ONCE}
    actions = bench.tell(ORIGIN, *calls(*more, attempt=root))
    assert sent(actions, AGENT, wire.Kill) == []
