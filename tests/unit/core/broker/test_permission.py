"""`idempotent=False` at the broker and in its worker: begun items, and items that were only queued."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from resilient_scoop.core.events import Action, Interrupt, Offer, Send
from resilient_scoop.core.facts.recovery import forget_items, forget_without_args
from resilient_scoop.ids import ROOT
from resilient_scoop.wire import messages as wire
from tests.unit.bench import (
    AGENT,
    ONCE,
    ORIGIN,
    RISKY,
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
)  # fmt: skip
from tests.unit.core.worker.test_worker import Desk


def intents(bench: Bench) -> list[tuple[int, bool]]:
    return [(each.start, each.void) for each in bench.logged() if isinstance(each, wire.Intent)]


def begun(*workers: bytes) -> tuple[Bench, wire.Attempt]:
    """Return a broker that has permitted the first worker to start an item, and the attempt."""
    bench = Bench()
    attempt = grant_one(bench, *workers, fn=RISKY)  # type: ignore[arg-type]
    bench.tell(W1, wire.BeginWanted(attempt, 0))
    return bench, attempt


def test_an_item_is_granted_without_a_record_and_may_start_after_a_record() -> None:
    bench = Bench()
    root = bench.begin(W1)

    actions = bench.tell(ORIGIN, RISKY, *calls(part(0, 0, 1, fn=ONCE), attempt=root))
    (task,) = granted(actions, W1)
    assert intents(bench) == []
    assert [type(a) for a in actions if isinstance(a, Send | Offer) and a.to == W1] == [Offer]

    actions = bench.tell(W1, wire.BeginWanted(wire.Attempt(1, task.no), 0))
    assert intents(bench) == [(0, False)]
    (sending,) = [a for a in actions if isinstance(a, Send | Offer) and a.to == W1]
    assert isinstance(sending, Send), "it waits for the commit"


def test_an_item_that_was_only_queued_runs_elsewhere_when_its_worker_is_lost() -> None:
    bench = Bench()
    grant_one(bench, W1, W2, fn=RISKY)

    actions = bench.tell(AGENT, lost(W1))

    assert len(granted(actions, W2)) == 1
    assert reported_error(bench) == "none"


@pytest.mark.parametrize("end", ["lost", "bye", "silence"])
def test_a_begun_item_is_given_up_when_its_worker_is_lost(end: str) -> None:
    bench, _ = begun(W1, W2)

    if end == "silence":
        actions = bench.wait(20, vouched=[W2])
    else:
        actions = bench.tell(AGENT, lost(W1)) if end == "lost" else bench.tell(W1, wire.Bye())

    assert reported_error(bench) == "lost"
    assert not granted(actions, W2)


def test_a_begun_item_stays_in_doubt_when_its_run_is_stopping() -> None:
    # Given a run that is stopped during an item, whose worker is killed for that
    bench, attempt = begun(W1, W2)
    bench.feed(Interrupt("asked"))

    actions = bench.tell(AGENT, wire.ProcessLost(W1, -9, "asked", attempt, 0))

    # Then it is not given up yet; a resume without a user's decision gives it up
    assert reported_error(bench) == "none"
    assert not granted(actions, W2)
    bench = bench.again(adopt=False)
    assert reported_error(bench) == "none"
    bench.begin(W2)
    assert reported_error(bench) == "lost"


@pytest.mark.parametrize("adopt", [True, False])
def test_a_new_broker_gives_up_begun_items_and_runs_granted_ones(adopt: bool) -> None:  # noqa: FBT001
    # Given two items, one of them begun, and no worker that holds them
    bench = Bench()
    root = bench.begin(W1, W2)
    actions = bench.tell(ORIGIN, RISKY, *calls(part(0, 0, 2, fn=ONCE), attempt=root))
    (first,) = granted(actions, W1)
    bench.tell(W1, wire.BeginWanted(wire.Attempt(1, first.no), first.start))

    bench = bench.again(adopt=adopt)
    bench.arrive(AGENT)
    bench.arrive(ORIGIN)
    bench.arrive(W2)
    bench.wait(1, vouched=[W2])

    assert reported_error(bench, first.start) == "lost"
    assert reported_error(bench, 1 - first.start) == "none"
    leases = list(bench.broker.scheduler.leases.values())
    assert [list(each.left) for each in leases] == [[(1 - first.start, 2 - first.start)]]


def test_a_begun_parent_is_not_moved_to_another_worker() -> None:
    bench, attempt = begun(W1, W2)
    bench.tell(W1, wire.Parked(attempt, 0))

    actions = bench.tell(W1, wire.Stuck(attempt, 0))

    assert not sent(actions, W1, wire.Evict)
    assert not granted(actions, W2)
    assert bench.broker.scheduler.workers[W1].stuck, "it gets nothing more meanwhile"


def test_an_item_returned_before_it_began_is_not_in_doubt() -> None:
    # Given a worker that asked to begin, and was told to stop before the answer arrived
    bench, attempt = begun(W1)
    bench.tell(W1, wire.Returned(attempt, 0), wire.Bye())
    assert intents(bench) == [(0, False), (0, True)]

    # When a new broker begins, then the item runs
    bench = bench.again(adopt=False)
    bench.arrive(AGENT)
    actions = [*bench.arrive(ORIGIN), *bench.arrive(W2)]
    assert reported_error(bench) == "none"
    assert len(bench.broker.scheduler.leases) == 1, actions


def test_an_outcome_that_does_not_count_does_not_make_an_item_start_again() -> None:
    bench, attempt = begun(W1, W2)

    bench.tell(W1, outcomes(0, 0, 1, fn=ONCE, salt=7, task=attempt))

    assert reported_error(bench) == "lost"


def test_a_call_that_replaces_a_begun_one_is_not_started() -> None:
    # Given a call that has begun, and a script that makes another call in its place
    bench, _ = begun(W1, W2)
    assert bench.broker.members.root is not None
    root = bench.broker.members.root[0]

    actions = bench.tell(ORIGIN, *calls(part(0, 0, 1, fn=ONCE, salt=7), attempt=root))

    # Then the new call ends with WorkerLostError
    assert reported_error(bench) == "lost"
    assert not granted(actions, W1)
    assert not granted(actions, W2)


def test_a_worker_without_the_lease_is_told_to_stop() -> None:
    bench, attempt = begun(W1, W2)
    bench.tell(W1, wire.Returned(attempt, 0))

    actions = bench.tell(W1, wire.BeginWanted(attempt, 0))

    assert dropped(actions) == [attempt]
    assert not sent(actions, W1, wire.MayBegin)


def dropped(actions: Sequence[Action]) -> list[wire.Attempt]:
    return [each for drop in sent(actions, W1, wire.Drop) for each in drop.attempts]


def test_a_worker_that_asks_again_gets_an_answer_and_nothing_more_is_logged() -> None:
    bench, attempt = begun(W1)

    actions = bench.tell(W1, wire.BeginWanted(attempt, 0))

    assert len(sent(actions, W1, wire.MayBegin)) == 1
    assert intents(bench) == [(0, False)]


@pytest.mark.parametrize("how", ["no record", "no file"])
def test_begun_items_whose_arguments_are_lost_are_not_requested_again(how: str) -> None:
    # Given two items of which one has begun, and no arguments after a power cut
    bench = Bench()
    root = bench.begin(W1)
    actions = bench.tell(ORIGIN, RISKY, *calls(part(0, 0, 2, fn=ONCE), attempt=root))
    task = granted(actions, W1)[0]
    bench.tell(W1, wire.BeginWanted(wire.Attempt(1, task.no), 0))
    bench = bench.again(adopt=False)
    state = bench.broker.state
    record = state.parents[ROOT].batches[0].pieces[0].record

    # Then only the other one is forgotten, so that its parent makes it again
    if how == "no record":
        assert forget_without_args(state, lambda _: False) == 1
    else:
        assert forget_items(state, record, {0, 1}) == 1
    assert list(state.parents[ROOT].batches[0].undone) == [(0, 1)]


def test_a_worker_asks_a_new_broker_again_for_permissions_that_it_lacks() -> None:
    # Given a worker that waits for permission, whose question was acknowledged
    desk = Desk()
    work = desk.grant(0, 1)
    desk.worker.ask_to_begin(work, 0)
    assert desk.messages(acknowledge=True) == [wire.BeginWanted(work.attempt, 0)]

    # When a new broker begins
    heard = desk.meet(2)

    # Then the worker asks it, after the Hello with its held items
    assert isinstance(heard[0], wire.Hello)
    assert wire.BeginWanted(work.attempt, 0) in heard
    # And it does not ask again for what is permitted
    desk.hear(wire.MayBegin(work.attempt, 0))
    desk.link.acked = desk.link.received
    desk.hear_raw(desk.link.beat())
    assert work.permitted == 0
    assert wire.BeginWanted(work.attempt, 0) not in desk.meet(3)


def test_an_item_whose_permission_is_requested_is_not_given_back() -> None:
    desk = Desk()
    work = desk.grant(0, 1)
    work.next = 1
    desk.worker.ask_to_begin(work, 0)
    desk.hear(wire.Retract(work.attempt, 0))
    desk.worker.give_back()

    assert wire.Returned(work.attempt, 1 << 62, 0) in desk.messages()

    # But it is given back when the worker is told to stop
    desk.worker.take_back(work, 0)
    assert wire.Returned(work.attempt, 0) in desk.messages()
    assert work.attempt not in desk.worker.works
