"""Planted bugs in what happens if a worker lacks a module for a function, or space for a large result."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from resilient_scoop.core.broker.broker import Broker
from resilient_scoop.core.broker.membership import Membership
from resilient_scoop.core.worker import set_aside
from resilient_scoop.wire import messages as wire
from resilient_scoop.wire.broker_errors import broker_error
from tests.sim.planting import Mutant, Patch

_MISSING = {
    "lacks": 0.9,
    "rates": {"broker": 0.5, "stop": 0.4, "worker": 0.3},
    "until": 10.0,
    "edits": True,
}
_LARGE = tuple(("map", "large", [value]) for value in range(12))
_FULL = {"rates": {"full": 1.0, "worker": 2.0}, "until": 10.0, "edits": False}


def _unfit_is_a_failure() -> Sequence[Patch]:
    unfit = Broker._unfit

    def bug(self: Broker, message: wire.Unfit) -> None:
        batch = self.scheduler.find(message.parent, message.call)
        if batch is not None:
            for low, high in list(batch.facts.undone):
                for index in range(low, high):
                    error = broker_error(
                        "lost", f"{message.parent}.{message.call}[{index}]", "unfit"
                    )
                    self.ledger.settle_error(batch, index, error)
        unfit(self, message)

    return [(Broker, "_unfit", bug)]


def _unfit_counts_before_its_replay() -> Sequence[Patch]:
    def bug(self: Broker, message: wire.Unfit) -> None:
        self.keeper.halted = self.keeper.halted or message.reason

    return [(Broker, "_unfit", bug)]


def _unfit_is_not_judged() -> Sequence[Patch]:
    return [(Broker, "_judge_unfit", lambda _self, _calls: None)]


def _unfit_is_not_reported_again() -> Sequence[Patch]:
    return [(set_aside, "repeat", lambda _works: [])]


def _set_aside_is_load() -> Sequence[Patch]:
    return [(Broker, "_ease", lambda _self, _peer, _unfit: None)]


def _the_dead_wait_for_space() -> Sequence[Patch]:
    lose = Membership.lose

    def bug(self: Membership, peer: Any, *more: Any, **named: Any) -> Any:
        message = self.roomless.reported.get(peer.id)
        lost = lose(self, peer, *more, **named)
        if message is not None:
            self.roomless.reported[peer.id] = message
        return lost

    return [(Membership, "lose", bug)]


MISSING_MUTANTS = (
    Mutant("what is missing on a worker is a failure", _unfit_is_a_failure, None, _MISSING),
    Mutant("what is missing counts unasked", _unfit_counts_before_its_replay, None, _MISSING),
    Mutant("what is missing is not judged", _unfit_is_not_judged, None, _MISSING),
    Mutant("what is missing is not reported again", _unfit_is_not_reported_again, None, _MISSING),
    Mutant("what is set aside is load", _set_aside_is_load, None, _MISSING),
    Mutant("the dead wait for space", _the_dead_wait_for_space, _LARGE, _FULL),
)
