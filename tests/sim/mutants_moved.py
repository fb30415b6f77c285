"""Planted bugs in moved results: bound to a position, taken from other calls, or not compared."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from resilient_scoop.core.parent.moved import Moved
from resilient_scoop.wire import messages as wire
from tests.sim.planting import Mutant, Patch

_EDITS = {"edits": True, "rates": {"stop": 0.5, "worker": 0.5}, "until": 10.0}
_SWEEPS = (
    ("map", "pure", [1, 2, 3, 4, 5]),
    ("map", "leaf", [1, 2, 3, 4, 5]),
    ("map", "slow", [1, 2]),
)


def _drawn_results_taken() -> Sequence[Patch]:
    note = Moved.note

    def bug(self: Moved, outcome: wire.Outcome) -> None:
        note(self, msgspec.structs.replace(outcome, pure=True))

    return [(Moved, "note", bug)]


def _arguments_not_compared() -> Sequence[Patch]:
    def bug(self: Moved, fingerprint: bytes, digest: bytes) -> Any:
        found = [run for run in self.runs if run.fingerprint == fingerprint and not run.failed]
        return (found[0], 0) if found else None

    return [(Moved, "_find", bug)]


def _functions_not_compared() -> Sequence[Patch]:
    note = Moved.note

    def bug(self: Moved, outcome: wire.Outcome) -> None:
        every = [b"", *self.fingerprints, outcome.fingerprint]
        for fingerprint in every[1:]:
            note(self, msgspec.structs.replace(outcome, fingerprint=fingerprint, pure=True))

    return [(Moved, "note", bug)]


MOVED_MUTANTS = (
    Mutant("drawn results taken for moved ones", _drawn_results_taken, _SWEEPS, _EDITS),
    Mutant("arguments of moved results not compared", _arguments_not_compared, _SWEEPS, _EDITS),
    Mutant("functions of moved results not compared", _functions_not_compared, _SWEEPS, _EDITS),
)
