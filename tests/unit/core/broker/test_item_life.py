"""The life of an item at the broker: every state with every event (the table at the scheduler's head)."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum, auto

import pytest

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
    lost,
    outcomes,
    part,
)


class State(Enum):
    UNKNOWN = auto()
    READY = auto()
    LEASED = auto()
    PARKED = auto()
    DONE = auto()


class Life:
    """Item 0 of the script's first batch, which has another item that does not change."""

    def __init__(self, state: State) -> None:
        self.bench = Bench()
        self.root = self.bench.begin()
        self.attempt = wire.Attempt(1, 99)
        if state is State.UNKNOWN:
            return
        self.bench.tell(ORIGIN, PLAIN)
        self.ask()
        if state is State.READY:
            return
        tasks = granted(self.bench.arrive(W1), W1)
        self.attempt = wire.Attempt(1, tasks[0].no)
        if state is State.PARKED:
            self.park()
        if state is State.DONE:
            self.end()

    @property
    def state(self) -> State:
        scheduler = self.bench.broker.ledger.scheduler
        batch = scheduler.find(ROOT, 0)
        if batch is not None and 0 in batch.facts.done:
            return State.DONE
        if batch is None or 0 not in batch.facts.undone:
            return State.UNKNOWN
        holders = [lease for lease in batch.leases if 0 in lease.left]
        assert len(holders) + (0 in batch.ready) == 1, "Q1"
        if not holders:
            return State.READY
        return State.PARKED if 0 in holders[0].parked else State.LEASED

    def ask(self, *, fresh: bool = False) -> None:
        asked = part(0, 0, 2, last=False, fresh=fresh)
        self.bench.tell(ORIGIN, *calls(asked, attempt=self.root))

    def renew(self) -> None:
        self.ask(fresh=True)

    def arrive(self) -> None:
        self.bench.arrive(W1 if W1 not in self.bench.broker.members.peers else W2)

    def park(self) -> None:
        self.bench.tell(W1, wire.Parked(self.attempt, 0, parked=True))

    def unpark(self) -> None:
        self.bench.tell(W1, wire.Parked(self.attempt, 0, parked=False))

    def end(self) -> None:
        if W1 not in self.bench.broker.members.peers:
            self.bench.arrive(W1)
        self.bench.tell(W1, outcomes(0, 0, 1, task=self.attempt))

    def give_back(self) -> None:
        self.bench.tell(W1, wire.Returned(self.attempt, 0))

    def lose(self) -> None:
        self.bench.tell(AGENT, lost(W1))

    def cancel(self) -> None:
        self.bench.tell(ORIGIN, wire.Cancel(ROOT, self.root, 0, 0))

    def abandon(self) -> None:
        self.bench.tell(ORIGIN, wire.Abandon(ROOT, self.root, [0]))


EVENTS = (
    Life.ask, Life.renew, Life.arrive, Life.park, Life.unpark, Life.end, Life.give_back, Life.lose,
    Life.cancel, Life.abandon,
)  # fmt: skip
NEXT: dict[tuple[State, Callable[[Life], None]], State] = {
    (State.UNKNOWN, Life.ask): State.READY,
    (State.UNKNOWN, Life.renew): State.READY,
    (State.READY, Life.arrive): State.LEASED,
    (State.READY, Life.end): State.DONE,  # the outcome of a worker that was believed lost
    (State.READY, Life.cancel): State.DONE,
    (State.READY, Life.abandon): State.UNKNOWN,
    (State.LEASED, Life.park): State.PARKED,
    (State.LEASED, Life.end): State.DONE,
    (State.LEASED, Life.lose): State.READY,
    (State.PARKED, Life.unpark): State.LEASED,
    (State.PARKED, Life.end): State.DONE,
    (State.PARKED, Life.give_back): State.LEASED,  # ready, and granted again at once
    (State.PARKED, Life.lose): State.READY,
    (State.DONE, Life.renew): State.LEASED,  # ready, and granted again at once
}
"""What is not listed changes nothing."""


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.__name__)
def test_every_event_changes_an_item_of_every_state_as_the_table_says(
    state: State, event: Callable[[Life], None]
) -> None:
    life = Life(state)
    assert life.state is state

    event(life)

    assert life.state is NEXT.get((state, event), state)


@pytest.mark.parametrize("event", [Life.cancel, Life.abandon], ids=lambda event: event.__name__)
def test_the_holder_of_an_unwanted_item_is_asked_to_return_it(
    event: Callable[[Life], None],
) -> None:
    life = Life(State.LEASED)
    event(life)

    life.give_back()

    assert life.state is (State.DONE if event is Life.cancel else State.UNKNOWN)


def test_a_returned_item_is_granted_as_another_attempt() -> None:
    life = Life(State.LEASED)

    life.give_back()

    assert life.state is State.LEASED
    assert life.attempt not in life.bench.broker.ledger.scheduler.leases
