"""Planted bugs in `once`: its answer is lost, another answer is used, or its calls are not skipped."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from resilient_scoop.core.parent import once
from resilient_scoop.core.parent.once import Once
from resilient_scoop.core.parent.parent import Parent
from tests.sim.planting import Mutant, Patch

_KEPT = (("kept", 2), ("map", "keeper", [2, 1]), ("kept", 3))
_ORIGIN = {"rates": {"both": 1.0, "broker": 1.0, "worker": 1.0}, "until": 10.0, "edits": False}


def _answered_before_it_is_durable() -> Sequence[Patch]:
    return [(Once, "is_durable", property(lambda _: True))]


def _not_passed_over() -> Sequence[Patch]:
    def bug(self: Parent, _calls: int, observations: int, _pending: Any) -> None:
        self.history.skip_to(observations)

    return [(Parent, "jump", bug)]


def _inner_ones_taken() -> Sequence[Patch]:
    def bug(_depth: int, at_call: int, at_observation: int) -> once.Begun:
        return once.Begun("once", at_call, at_observation)

    return [(once, "begin", bug)]


def _not_looked_for() -> Sequence[Patch]:
    find = once.find

    def bug(recorded: Any, begun: once.Begun) -> Any:
        found = find(recorded, begun)
        return found if found is None or found is recorded[0] else None

    return [(once, "find", bug)]


ONCE_MUTANTS = (
    Mutant("once answered before it is durable", _answered_before_it_is_durable, _KEPT, _ORIGIN),
    Mutant("what once did is not passed over", _not_passed_over, _KEPT, _ORIGIN),
    Mutant("answers of inner functions taken", _inner_ones_taken, _KEPT, _ORIGIN),
    Mutant("answers after others not found", _not_looked_for, _KEPT, _ORIGIN),
)
