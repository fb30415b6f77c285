"""Planted bugs in what forgets callables, announces them again, and erases their records."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from resilient_scoop.core import defines, forgetting, worker
from resilient_scoop.core.defines import Defines
from resilient_scoop.core.forgetting import Rounds
from resilient_scoop.core.membership import Membership
from resilient_scoop.core.worker import Worker
from resilient_scoop.wire import messages as wire
from tests.sim.mutants import Mutant, Patch


def _nobody_waited_for() -> Sequence[Patch]:
    return [(Rounds, "is_over", property(lambda self: self.number > self._first))]


def _silent_origin_not_waited_for() -> Sequence[Patch]:
    return [(Rounds, "_counts", lambda self, peer: peer in self.ledger.peers)]


def _still_taken_for_announced() -> Sequence[Patch]:
    forget = forgetting.forget

    def bug(self: Worker, asked: wire.Forget) -> None:
        announced, known = self.announced, self.functions
        forget(self, asked)
        self.announced = announced
        self.functions = {**{fn: known[fn] for fn in announced}, **self.functions}

    return [(worker, "forget", bug)]


def _calls_not_announced_again() -> Sequence[Patch]:
    return [(forgetting, "announcements", lambda _: [])]


def _nothing_announced_behind_hello() -> Sequence[Patch]:
    return [(worker, "announcements", lambda _: [])]


def _revived_not_asked() -> Sequence[Patch]:
    revive = Membership.revive

    def bug(self: Membership, peer_id: Any, now: float) -> Any:
        peer = revive(self, peer_id, now)
        self.ledger.revived.clear()
        return peer

    return [(Membership, "revive", bug)]


def _used_forgotten() -> Sequence[Patch]:
    def bug(self: Rounds, peer: Any) -> None:
        if peer.role != "agent":
            peer.functions &= {lease.fn for lease in peer.leases.values()}
            self.ledger.offer(peer.id, wire.encode(wire.Forget(self.number, [])))

    return [(Rounds, "_ask", bug)]


def _still_taken_for_known() -> Sequence[Patch]:
    def bug(self: Rounds, peer: Any) -> None:
        if peer.role != "agent":
            self.ledger.offer(peer.id, wire.encode(wire.Forget(self.number, [])))

    return [(Rounds, "_ask", bug)]


def _erased_while_named() -> Sequence[Patch]:
    return [(defines, "_note", lambda *_: None)]


def _announced_since_erased() -> Sequence[Patch]:
    superfluous = Defines._superfluous

    def bug(self: Defines, search: Any, page: Any) -> Any:
        ledger = self._broker.ledger
        heard, ledger.heard_defined = ledger.heard_defined, set()
        try:
            return superfluous(self, search, page)
        finally:
            ledger.heard_defined = heard

    return [(Defines, "_superfluous", bug)]


def _looked_for_before_commit() -> Sequence[Patch]:
    look = Defines._look

    def bug(self: Defines, search: Any) -> Any:
        search.turn = 0
        return look(self, search)

    return [(Defines, "_look", bug)]


def _rounds_begin_meanwhile() -> Sequence[Patch]:
    tend = Rounds.tend

    def bug(self: Rounds, *, stopping: bool) -> None:
        self.is_held = False
        tend(self, stopping=stopping)

    return [(Rounds, "tend", bug)]


def _old_answers_count() -> Sequence[Patch]:
    init = Rounds.__init__

    def bug(self: Rounds, ledger: Any, epoch: int, kept_max: int) -> None:
        init(self, ledger, 0, kept_max)

    return [(Rounds, "__init__", bug)]


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
_SLEEPY = {**_DRIZZLE, "rates": {"pause": 1.0, "cut": 1.0, "broker": 0.2}, "lease_s": 3.0}
_LATE = {**_DRIZZLE, "rates": {"broker": 1.0, "cut": 1.0}, "boot_s": 0.3}

FORGET_MUTANTS = (
    Mutant("nobody waited for", _nobody_waited_for, _LOOP, _DRIZZLE),
    Mutant("a silent origin not waited for", _silent_origin_not_waited_for, _LOOP, _SLEEPY),
    Mutant("still taken for announced", _still_taken_for_announced, _LOOP, _DRIZZLE),
    Mutant("calls not announced again", _calls_not_announced_again, _LOOP, _DRIZZLE),
    Mutant("nothing announced behind Hello", _nothing_announced_behind_hello, _LOOP, _LATE),
    Mutant("who is heard again not asked", _revived_not_asked, _LOOP, _SLEEPY),
    Mutant("tasks on their way forgotten", _used_forgotten, _LOOP, _DRIZZLE),
    Mutant("still taken for known", _still_taken_for_known, _LOOP, _DRIZZLE),
    Mutant("erased while named", _erased_while_named, _LOOP, _DRIZZLE),
    Mutant("erased though announced since", _announced_since_erased, _LOOP, _DRIZZLE),
    Mutant("looked for before the commit", _looked_for_before_commit, _LOOP, _DRIZZLE),
    Mutant("rounds begin meanwhile", _rounds_begin_meanwhile, _LOOP, _DRIZZLE),
    Mutant("old answers count", _old_answers_count, _LOOP, _LATE),
)
