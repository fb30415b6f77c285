"""Planted bugs in the handling of items that must not be started twice: one for each way to start twice."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from resilient_scoop.core.broker import permission
from resilient_scoop.core.broker.broker import Broker
from resilient_scoop.core.broker.ledger import Ledger
from resilient_scoop.core.broker.scheduler import Scheduler
from resilient_scoop.core.worker.worker import Worker
from resilient_scoop.wire import messages as wire
from tests.sim.planting import Mutant, Patch

_VENTURES = (("ventures", 3, 3, ["long", "slow", "slow", "long"]),)
_BUSY = {"workers": 2, "nodes": 1, "rates": {"worker": 1.0}, "until": 10.0, "edits": False}


def _moved() -> Sequence[Patch]:
    def bug(self: Scheduler, lease: Any, index: int, tries: int = 0) -> bool:
        if index not in lease.parked or self._roomiest() is None:
            return False
        self.settle(lease, index, index + 1)
        self.enqueue(lease.batch, [(index, index + 1)], resumes=True)
        return True

    return [(Scheduler, "evict", bug)]


def _not_waited_for() -> Sequence[Patch]:
    ask = Worker.ask_to_begin

    def bug(self: Worker, work: Any, index: int) -> None:
        ask(self, work, index)
        work.permitted = index

    return [(Worker, "ask_to_begin", bug)]


def _permitted_before_commit() -> Sequence[Patch]:
    permit = permission.permit

    def bug(ledger: Ledger, peer: Any, wanted: Any, stopping: Any) -> None:
        permit(ledger, peer, wanted, stopping)
        ledger.outbox.offer(peer.id, wire.encode(wire.MayBegin(wanted.attempt, wanted.index)))

    return [(permission, "permit", bug)]


def _begun_items_again() -> Sequence[Patch]:
    def bug(self: Ledger, batch: Any, spans: Any, *, resumes: bool) -> int:
        again = [run for span in spans for run in batch.facts.undone.overlap(*span)]
        self.scheduler.enqueue(batch, again, resumes=resumes)
        return len(again)

    return [(Ledger, "again", bug), (Broker, "check", lambda _: None)]


def _queued_items_given_up() -> Sequence[Patch]:
    grant = Broker._grant

    def bug(self: Broker, peer: Any, slices: Any) -> None:
        grant(self, peer, slices)
        for each in slices:
            if not each.options.idempotent:
                batch, task = each.lease.batch, each.task
                permission._write(self.ledger, batch, task.start, task.start + 1, void=False)

    return [(Broker, "_grant", bug)]


PERMISSION_MUTANTS = (
    Mutant("begun parents moved", _moved, _VENTURES, _BUSY),
    Mutant("begun without permission", _not_waited_for, _VENTURES),
    Mutant("permitted before the commit", _permitted_before_commit, _VENTURES),
    Mutant("begun items to do again", _begun_items_again, _VENTURES),
    Mutant("queued items given up", _queued_items_given_up, _VENTURES, _BUSY),
)
