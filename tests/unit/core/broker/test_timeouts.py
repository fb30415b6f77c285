"""`timeout=` of calls that wait for their own calls, in the machines of broker and worker (T1)."""

from __future__ import annotations

from resilient_scoop.ids import ROOT, item_path
from resilient_scoop.wire import messages as wire
from tests.unit.bench import (
    AGENT,
    FN,
    ORIGIN,
    W1,
    W2,
    Bench,
    calls,
    granted,
    outcomes,
    part,
    reported_error,
    sent,
)

LIMITED = wire.Define(FN, FN, "m:limited", b"code", wire.Options(timeout_s=2.0))
PATH = item_path(ROOT, 0, 0)


def waiting(
    define: wire.Define = LIMITED, *, left_s: float = 2.0, tries: int = 0
) -> tuple[Bench, wire.Attempt]:
    """Let an item wait on its worker for a call that another worker holds."""
    bench = Bench()
    root = bench.begin(W1, W2)
    (task,) = granted(bench.tell(ORIGIN, define, *calls(part(0, 0, 1), attempt=root)), W1)
    attempt = wire.Attempt(1, task.no)
    parked = wire.Parked(attempt, 0, True, left_s, tries)
    bench.tell(W1, *calls(part(0, 0, 1), parent=PATH, attempt=attempt), parked)
    return bench, attempt


def crashes(bench: Bench) -> list[wire.Crashed]:
    return [record for record in bench.logged() if isinstance(record, wire.Crashed)]


def test_a_call_that_waits_beyond_its_limit_ends_and_is_taken_from_its_worker() -> None:
    bench, attempt = waiting()
    assert not sent(bench.wait(1, vouched=[ORIGIN, W1, W2]), W1, wire.Evict)
    assert bench.broker.deadline(bench.now) <= bench.now + 1.0
    actions = bench.wait(2, vouched=[ORIGIN, W1, W2])
    assert sent(actions, W1, wire.Evict) == [wire.Evict(attempt, 0)]
    assert reported_error(bench) == "timeout"
    assert [each.exit for each in crashes(bench)] == [0], "no worker died"
    assert not bench.broker.scheduler.leases
    (kill,) = sent(actions, AGENT, wire.Kill)
    assert (kill.reason, kill.attempt is None) == ("asked", False), "what it waited for ends, too"


def test_a_call_that_continues_is_not_ended_and_is_limited_again_when_it_waits_again() -> None:
    bench, attempt = waiting()
    bench.tell(W1, wire.Parked(attempt, 0, parked=False))
    bench.wait(3, vouched=[ORIGIN, W1, W2])
    assert reported_error(bench) == "none", "its agent watches it"
    bench.tell(W1, wire.Parked(attempt, 0, True, 0.5))
    bench.wait(1, vouched=[ORIGIN, W1, W2])
    assert reported_error(bench) == "timeout"


def test_tries_on_all_workers_count_together() -> None:
    twice = wire.Define(FN, FN, "m:limited", b"code", wire.Options(timeout_s=2.0, retries=1))

    # The first try has failed in the worker: there is no third
    bench, _ = waiting(twice, tries=1)
    bench.wait(3, vouched=[ORIGIN, W1, W2])
    assert reported_error(bench) == "timeout"

    # The first try waits too long: the second try finds the calls of the first
    bench, _ = waiting(twice)
    actions = bench.wait(3, vouched=[ORIGIN, W1, W2])
    assert reported_error(bench) == "none"
    (again,) = [task for peer in (W1, W2) for task in granted(actions, peer)]
    assert (again.parent, again.start, again.replay, again.tries) == (ROOT, 0, True, 1)


def test_a_new_broker_continues_to_count_tries() -> None:
    bench, attempt = waiting()
    other = bench.again()
    other.arrive(AGENT, incarnations=[W1, ORIGIN])
    held = wire.Held(attempt, ROOT, 0, FN, [(0, 1)], part(0, 0, 1).digests)
    other.arrive(W1, held=[held], waiting=[wire.Waiting(PATH, attempt, 1.5, 0)])
    other.wait(1, vouched=[ORIGIN, W1])
    assert reported_error(other) == "none"
    other.wait(1, vouched=[ORIGIN, W1])
    assert reported_error(other) == "timeout"


def test_a_call_whose_own_call_ends_in_time_does_not_time_out() -> None:
    bench, attempt = waiting()
    (lease,) = [each for each in bench.broker.scheduler.leases.values() if each.attempt != attempt]
    child = outcomes(0, 0, 1, parent=PATH, task=lease.attempt)
    bench.tell(lease.peer.id, child)
    bench.tell(W1, wire.Parked(attempt, 0, parked=False), outcomes(0, 0, 1, task=attempt))
    bench.wait(5, vouched=[ORIGIN, W1, W2])
    assert reported_error(bench) == "none"
    assert bench.broker.membership.limits.next() > bench.now
