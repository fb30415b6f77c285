"""Calls that were given up: items that have not begun are not computed, and begun items end."""

from __future__ import annotations

from collections.abc import Sequence

from resilient_scoop.core.events import Action
from resilient_scoop.ids import ROOT
from resilient_scoop.wire import messages as wire
from tests.unit.bench import (
    AGENT,
    ORIGIN,
    PLAIN,
    W1,
    W2,
    Bench,
    calls,
    granted,
    outcomes,
    part,
    sent,
)

EVERYTHING = (0, 1 << 62)


class Yard:
    """A root with one call of eight items; the first worker has some of them, and has begun one."""

    def __init__(self, *, last: bool = True) -> None:
        self.bench = Bench()
        self.root = self.bench.begin(W1)
        first = part(0, 0, 8, last=last)
        actions = self.bench.tell(ORIGIN, PLAIN, *calls(first, attempt=self.root))
        self.held = {t.start: wire.Attempt(1, t.no) for t in granted(actions, W1)}
        assert len(self.held) == 2, "items of an unknown function are granted one by one"

    def give_up(self, call: int = 0) -> list[Action]:
        return self.bench.tell(ORIGIN, wire.Abandon(ROOT, self.root, [call]))

    def finish(self, index: int) -> list[Action]:
        return self.bench.tell(W1, outcomes(0, index, index + 1, task=self.held[index]))

    def known(self) -> tuple[int, int]:
        state = self.bench.broker.state
        return state.items_done, state.items_known


def spans(actions: Sequence[Action]) -> list[tuple[int, int]]:
    return [span for each in sent(actions, ORIGIN, wire.Abandoned) for span in each.spans]


def test_ready_items_are_abandoned_and_holders_are_asked_once() -> None:
    yard = Yard()

    actions = yard.give_up()

    assert spans(actions) == [(2, 8)]
    assert wire.Abandoned(ROOT, 0, [(2, 8)]) in yard.bench.logged()
    asked = sent(actions, W1, wire.Retract)
    assert {each.attempt for each in asked} == set(yard.held.values())
    assert yard.known() == (0, 2)
    assert sent(yard.bench.wait(1, vouched=[W1]), W1, wire.Retract) == []


def test_started_items_end_and_the_rest_is_reported_as_abandoned() -> None:
    yard = Yard()
    yard.give_up()
    given_back = yard.bench.tell(W1, wire.Returned(yard.held[1], 1))
    assert spans(given_back) == [(1, 2)]
    assert granted(given_back, W1) == []

    actions = yard.finish(0)

    assert sent(actions, ORIGIN, wire.Outcomes)
    assert spans(actions) == [EVERYTHING]
    assert yard.known() == (1, 1)
    assert yard.bench.broker.abandonments.open == {}
    assert yard.bench.broker.state.parents[ROOT].batches == {}


def test_items_of_a_lost_worker_are_abandoned_and_not_assigned() -> None:
    yard = Yard()
    yard.give_up()
    yard.bench.arrive(W2)

    actions = yard.bench.tell(AGENT, wire.ProcessLost(W1, -9, "crash"))

    assert granted(actions, W2) == []
    assert set(spans(actions)) >= {(0, 2)}
    assert yard.known() == (0, 0)


def test_an_abandonment_of_an_unknown_or_finished_call_is_answered_at_once() -> None:
    yard = Yard()
    assert spans(yard.give_up(7)) == [EVERYTHING]


def test_a_call_without_its_last_part_ends_when_it_has_no_items_left() -> None:
    # Given a call of which all known items are done, and whose last part was lost with a broker
    bench = Bench()
    first = bench.begin(W1)
    bench.tell(ORIGIN, PLAIN, *calls(part(0, 0, 1, last=False), attempt=first))
    bench.tell(W1, outcomes(0, 0, 1))
    again = bench.again()
    root = again.begin(W1)

    # When the replay gives it up
    actions = again.tell(ORIGIN, wire.Abandon(ROOT, root, [0]))

    # Then it ends with the known items, also for later brokers
    assert spans(actions) == [EVERYTHING]
    assert again.broker.abandonments.open == {}
    for broker in (again.broker, again.again().broker):
        parent = broker.state.parents[ROOT]
        assert (parent.batches, parent.size_of(0)) == ({}, 1)


def test_a_call_without_its_last_part_ends_when_its_begun_items_have_ended() -> None:
    bench = Bench()
    root = bench.begin(W1)
    first = part(0, 0, 1, last=False)
    (task,) = granted(bench.tell(ORIGIN, PLAIN, *calls(first, attempt=root)), W1)
    given_up = bench.tell(ORIGIN, wire.Abandon(ROOT, root, [0]))
    assert spans(given_up) == []

    actions = bench.tell(W1, outcomes(0, 0, 1, task=wire.Attempt(1, task.no)))

    assert spans(actions) == [EVERYTHING]
    assert bench.broker.abandonments.open == {}
    assert bench.broker.state.parents[ROOT].batches == {}


def test_a_new_broker_knows_which_items_were_abandoned() -> None:
    yard = Yard()
    yard.give_up()

    other = yard.bench.again(adopt=False)

    parent = other.broker.state.parents[ROOT]
    assert list(parent.batches[0].undone) == [(0, 2)]
    assert other.broker.state.items_known == 2


def test_items_that_a_later_attempt_wants_are_computed() -> None:
    # Given a call of which one item was done when the rest was given up
    yard = Yard()
    yard.give_up()
    yard.bench.tell(W1, wire.Returned(yard.held[1], 1))
    yard.finish(0)
    parent = yard.bench.broker.state.parents[ROOT]
    assert parent.size_of(0) == 1

    # When the script, resumed and changed, continues to read
    other = yard.bench.again()
    root = other.begin(W2)
    actions = other.tell(ORIGIN, PLAIN, *calls(part(0, 1, 8), attempt=root))

    # Then the rest are new items
    assert [task.start for task in granted(actions, W2)] == [1, 2]
    assert other.broker.state.items_known == 8


def test_items_done_after_abandoned_ones_stay_done() -> None:
    # Given items 0 and 1, of which only the latter is done when the call ends
    yard = Yard()
    yard.finish(1)
    yard.give_up()
    for attempt in list(yard.bench.broker.scheduler.leases):
        yard.bench.tell(W1, wire.Returned(attempt, 0))
    parent = yard.bench.broker.state.parents[ROOT]
    assert (parent.size_of(0), list(parent.partial[0])) == (1, [(1, 2)])
    assert yard.known() == (1, 1)

    # When another attempt asks for all of it, at a new broker
    other = yard.bench.again()
    root = other.begin(W2)
    other.tell(ORIGIN, PLAIN, *calls(part(0, 0, 3), attempt=root))

    # Then the done item is not computed again
    batch = other.broker.state.parents[ROOT].batches[0]
    assert (list(batch.undone), list(batch.done)) == ([(0, 1), (2, 3)], [(1, 2)])


def test_the_same_attempt_may_make_other_calls_and_an_older_attempt_changes_nothing() -> None:
    yard = Yard()
    yard.give_up()
    yard.bench.tell(ORIGIN, *calls(part(1, 0, 1), attempt=yard.root))
    assert list(yard.bench.broker.abandonments.open) == [(ROOT, 0)]
