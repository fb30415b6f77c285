"""Planted bugs in code that forgets callables, announces them again, and erases their records."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from resilient_scoop.core.broker import callable_cache
from resilient_scoop.core.broker.callable_cache import CallableCache
from resilient_scoop.core.broker.callable_eviction import CallableEviction, RoundPhase
from resilient_scoop.core.worker.worker import Worker
from resilient_scoop.wire import messages as wire
from tests.sim.planting import Mutant, Patch


def _still_taken_for_announced() -> Sequence[Patch]:
    forget = Worker._forget

    def bug(self: Worker, asked: wire.Forget) -> None:
        announced, known = self.callables.announced, self.callables.known
        forget(self, asked)
        self.callables.announced = announced
        self.callables.known = {**{fn: known[fn] for fn in announced}, **self.callables.known}

    return [(Worker, "_forget", bug)]


def _used_forgotten() -> Sequence[Patch]:
    def bug(self: CallableEviction, peer: Any) -> None:
        if peer.role != "agent":
            peer.functions &= {lease.fn for lease in peer.leases.values()}
            self.outbox.offer(peer.id, wire.encode(wire.Forget(self.number, [])))

    return [(CallableEviction, "ask", bug)]


def _still_taken_for_known() -> Sequence[Patch]:
    def bug(self: CallableEviction, peer: Any) -> None:
        if peer.role != "agent":
            self.outbox.offer(peer.id, wire.encode(wire.Forget(self.number, [])))

    return [(CallableEviction, "ask", bug)]


def _erased_while_named() -> Sequence[Patch]:
    return [(callable_cache, "_note", lambda *_: None)]


def _announced_since_erased() -> Sequence[Patch]:
    obsolete = CallableCache._obsolete

    def bug(self: CallableCache, search: Any, page: Any) -> Any:
        rounds = self._rounds
        heard, rounds.announced = rounds.announced, set()
        try:
            return obsolete(self, search, page)
        finally:
            rounds.announced = heard

    return [(CallableCache, "_obsolete", bug)]


def _rounds_begin_meanwhile() -> Sequence[Patch]:
    tend = CallableEviction.tend

    def bug(self: CallableEviction, *, stopping: bool) -> None:
        if self.phase is RoundPhase.SEARCHING:
            self.phase = RoundPhase.OVER
        tend(self, stopping=stopping)

    def unchecked(self: CallableEviction) -> None:
        """Bypass the table of states, which would detect the bug; the simulator must find its effect."""

    return [(CallableEviction, "tend", bug), (CallableEviction, "end_search", unchecked)]


_LOOP = (
    ("differing", "loop", 12, 3),
    ("map", "drip", [[50, 4], [60, 3], [70, 4]]),
    ("differing", "again", 8, 2),
)
_DRIZZLE = {
    "rates": {"both": 0.3, "worker": 0.3, "broker": 0.5, "cut": 0.5},
    "until": 8.0,
    "written": 1.0,
    "unloadable": 0.0,
    "edits": False,
}
_STORM = {**_DRIZZLE, "rates": {"both": 1.0, "cut": 1.0}}

FORGET_MUTANTS = (
    Mutant("still taken for announced", _still_taken_for_announced, _LOOP, _DRIZZLE),
    Mutant("tasks on their way forgotten", _used_forgotten, _LOOP, _DRIZZLE),
    Mutant("still taken for known", _still_taken_for_known, _LOOP, _DRIZZLE),
    Mutant("erased while named", _erased_while_named, _LOOP, _DRIZZLE),
    Mutant("erased though announced since", _announced_since_erased, _LOOP, _DRIZZLE),
    Mutant("rounds begin meanwhile", _rounds_begin_meanwhile, _LOOP, _STORM),
)
