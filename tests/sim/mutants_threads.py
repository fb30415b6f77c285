"""Planted bugs in calls of threads: numbers that depend on the order, and a forgotten parent."""

from __future__ import annotations

from collections.abc import Sequence

from resilient_scoop import ids
from resilient_scoop.core.facts import recovery
from resilient_scoop.core.parent.by_content import ByContent
from resilient_scoop.core.parent.calls import ParentCalls
from tests.sim.planting import Mutant, Patch

_THREADS = (
    ("threads", "slow", [3, 1, 4, 5, 9, 2]),
    ("threads", "leaf", [1, 2, 3, 4, 5]),
    ("threads", "slow", [3, 1, 4]),
)
_ORIGIN = {"rates": {"both": 1.0, "broker": 1.0, "origin": 1.0}, "until": 10.0, "edits": False}


def _numbered_by_order() -> Sequence[Patch]:
    def bug(self: ByContent, _fingerprint: bytes, _digests: bytes) -> int:
        count = self._made.get(0, 0)
        self._made[0] = count + 1
        return count << 12

    return [(ByContent, "number", bug)]


def _equal_calls_not_counted() -> Sequence[Patch]:
    number = ByContent.number

    def bug(self: ByContent, fingerprint: bytes, digests: bytes) -> int:
        return number(self, fingerprint, digests) >> 12 << 12

    return [(ByContent, "number", bug)]


def _arguments_left_out() -> Sequence[Patch]:
    number = ByContent.number

    def bug(self: ByContent, fingerprint: bytes, _digests: bytes) -> int:
        return number(self, fingerprint, b"")

    return [(ByContent, "number", bug)]


def _forgotten_by_a_new_broker() -> Sequence[Patch]:
    return [(recovery, "SCRIPTS", (ids.ROOT,))]


def _not_found_in_the_history() -> Sequence[Patch]:
    found = ParentCalls.begin_found

    def bug(self: ParentCalls, fn: bytes, fingerprint: bytes, digests: bytes) -> object:
        call = found(self, fn, fingerprint, digests)
        self.ahead.pop(call.number, None)
        return call

    return [(ParentCalls, "begin_found", bug)]


THREAD_MUTANTS = (
    Mutant("calls of threads numbered by order", _numbered_by_order, _THREADS, _ORIGIN),
    Mutant("equal calls of threads not counted", _equal_calls_not_counted, _THREADS, _ORIGIN),
    Mutant("calls of threads numbered without arguments", _arguments_left_out, _THREADS, _ORIGIN),
    Mutant(
        "calls of threads forgotten by a new broker", _forgotten_by_a_new_broker, _THREADS, _ORIGIN
    ),
    Mutant(
        "calls of threads not looked for in the history",
        _not_found_in_the_history,
        _THREADS,
        _ORIGIN,
    ),
)
