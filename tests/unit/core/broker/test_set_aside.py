"""A worker that lacks what a call needs: the run stops, unless the replay makes another call."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import structs

from resilient_scoop.core.events import Action, GrantStored
from resilient_scoop.ids import ROOT
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
    Bench,
    calls,
    granted,
    part,
    sent,
)

if TYPE_CHECKING:
    from collections.abc import Sequence


def unfit(fn: bytes = FN, parent: str = ROOT) -> wire.Unfit:
    return wire.Unfit(parent, 0, fn, "worker w1 cannot load m:plain")


def asked_for(fn: bytes = FN) -> Bench:
    """Return a broker whose script has made three items."""
    bench = Bench()
    attempt = bench.begin(W1)
    bench.tell(ORIGIN, PLAIN, RISKY, *calls(part(0, 0, 3, fn=fn), attempt=attempt))
    return bench


def resumed() -> tuple[Bench, wire.Attempt]:
    """Return a broker that finds three undone items in its journal, and the script's new attempt."""
    bench = asked_for().again(adopt=False)
    return bench, bench.begin(W1)


def are_asked(actions: Sequence[Action]) -> set[bool]:
    """Return what the tasks that are handed out say of their calls."""
    stored = [task for each in actions if isinstance(each, GrantStored) for task in each.tasks]
    return {task.is_asked for task in (*stored, *granted(actions, W1), *granted(actions, W2))}


def test_a_worker_that_cannot_load_a_function_stops_the_run_and_nothing_is_logged() -> None:
    bench = asked_for()
    before = bench.logged()

    actions = bench.tell(W1, unfit())

    assert sent(actions, W1, wire.Stop)
    assert bench.broker.keeper.halted == "worker w1 cannot load m:plain"
    assert bench.logged() == before


def test_a_worker_that_cannot_import_the_script_stops_the_run_when_a_call_waits() -> None:
    bench = Bench()
    attempt = bench.begin()
    assert not sent(bench.tell(AGENT, unfit(b"", "")), ORIGIN, wire.Stop)

    actions = bench.tell(ORIGIN, PLAIN, *calls(part(0, 0, 3), attempt=attempt))

    assert sent(actions, ORIGIN, wire.Stop)
    assert bench.broker.keeper.halted == "worker w1 cannot load m:plain"


def test_the_error_of_the_script_itself_ends_the_run_that_workers_cannot_import_either() -> None:
    bench = Bench()
    attempt = bench.begin()
    bench.tell(AGENT, unfit(b"", ""))
    bench.tell(ORIGIN, wire.RunEnded(attempt, 1, True, "NameError: stray", 0, 0, 0))
    assert bench.broker.membership.stopping == "ended"
    assert not bench.broker.keeper.halted


def test_unfit_batches_from_the_journal_wait_for_their_replay() -> None:
    # Given a worker that cannot load a function that an earlier life of the script called
    bench, attempt = resumed()
    assert not sent(bench.tell(W1, unfit()), W1, wire.Stop)

    # When the replay calls another function at this position, then the run continues
    again = bench.tell(ORIGIN, *calls(part(0, 0, 3, fn=ONCE, fresh=True), attempt=attempt))
    assert not sent(again, W1, wire.Stop)
    assert not sent(bench.tell(W1, unfit()), W1, wire.Stop)

    # But when it calls the same function, the run stops
    bench, attempt = resumed()
    bench.tell(W1, unfit())
    assert sent(bench.tell(ORIGIN, *calls(part(0, 0, 3), attempt=attempt)), W1, wire.Stop)


def test_a_broker_that_takes_over_does_not_wait_for_a_replay() -> None:
    bench = asked_for().again(adopt=True)
    bench.begin(W1)
    assert sent(bench.tell(W1, unfit()), W1, wire.Stop)


def test_a_call_that_is_done_or_unknown_stops_nothing() -> None:
    bench = Bench()
    bench.begin(W1)
    assert not sent(bench.tell(W1, unfit()), W1, wire.Stop)
    assert not sent(bench.tell(W1, unfit(parent="0.7[1]")), W1, wire.Stop)


def test_a_worker_that_has_set_all_items_aside_gets_other_calls() -> None:
    bench, attempt = resumed()
    for _ in range(3):  # each time it is given another item
        bench.tell(W1, unfit())
    assert bench.broker.members.peers[W1].items == 0
    actions = bench.tell(ORIGIN, PLAIN, *calls(part(1, 0, 1), attempt=attempt))
    assert [task.call for task in granted(actions, W1)] == [1]


def test_a_function_that_differs_before_its_call_is_repeated_is_no_failure() -> None:
    # Given a worker whose function is not that of the journaled call, since the script was edited
    bench, attempt = resumed()
    differing = structs.replace(unfit(), differs=True)
    before = bench.logged()
    assert not sent(bench.tell(W1, differing), W1, wire.Stop)
    assert bench.logged() == before

    # When the script calls the same function again, then the item is handed out as asked for
    actions = bench.tell(ORIGIN, *calls(part(0, 0, 3), attempt=attempt))
    assert not sent(actions, W1, wire.Stop)
    assert sent(actions, W1, wire.Drop)
    assert are_asked(actions) == {True}


def test_a_function_that_differs_is_asked_for_again_if_its_call_was_repeated_meanwhile() -> None:
    # Given a worker that got an item before the script has called it again
    bench, attempt = resumed()
    bench.tell(ORIGIN, *calls(part(0, 0, 3), attempt=attempt))

    # When it says afterwards that the function differs, then it gets the item as asked for
    actions = bench.tell(W1, structs.replace(unfit(), differs=True))
    assert sent(actions, W1, wire.Drop)
    assert are_asked(actions) == {True}


def test_items_of_the_journal_are_not_marked_as_asked_for() -> None:
    bench = asked_for().again(adopt=False)
    attempt = bench.begin()
    assert are_asked(bench.arrive(W1)) == {False}
    more = bench.tell(ORIGIN, PLAIN, *calls(part(0, 0, 3), part(1, 0, 1), attempt=attempt))
    assert are_asked([*more, *bench.arrive(W2)]) == {True}
