"""Batches that their parents have given up, at the broker: items that have not started are not computed.

What happens to the items of such a batch:

  ready                       abandoned: removed from the batch, and the parent is told
  leased, started or waiting  continues; its outcome counts as any other
  leased, not started         the holder gives it back (`Retract`, once per lease): ready
  holder lost                 ready

  AB1  An item is abandoned while no worker holds it, so no worker starts it afterwards; right after a
       restart, this is unknown until the workers have arrived.
  AB2  The record says which items were removed; without it (the broker died first) they are computed
       until the parent, which remembers them, gives them up again.
  AB3  An item that a later attempt of the parent calls is a new one. That attempt wants the batch, so an
       earlier attempt's request to give it up is void.
  AB4  A batch that was given up has ended, even if the part with its end never arrived (it was lost with
       a broker, and a replay that gives the batch up does not send it). Else an empty batch would stay
       open to the end of the run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from resilient_scoop.wire import messages as wire

if TYPE_CHECKING:
    from resilient_scoop.core.broker.leases import OpenBatch, Peer
    from resilient_scoop.core.broker.ledger import Ledger
    from resilient_scoop.core.facts.parent import ParentFacts

EVERYTHING = [(0, 1 << 62)]


class _GivenUp(msgspec.Struct):
    by: wire.Attempt
    asked: set[wire.Attempt] = msgspec.field(default_factory=set)  # leases whose holders were asked


class Abandonments:
    """Given-up batches that are not over, in one epoch of the broker."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.state = ledger.state
        self.outbox = ledger.outbox
        self.scheduler = ledger.scheduler
        self.open: dict[tuple[str, int], _GivenUp] = {}

    def ask(self, peer: Peer, wanted: wire.Abandon) -> None:
        """Record batches that a parent gives up."""
        if self.ledger.current(peer, wanted.parent, wanted.attempt):
            for call in wanted.calls:
                self.open[wanted.parent, call] = _GivenUp(wanted.attempt)

    def asked_for(self, calls: wire.Calls) -> None:
        """Handle items that a later attempt of the parent calls again (AB3)."""
        if self.open:
            now = calls.attempt.epoch, calls.attempt.no
            for part in calls.parts:
                given_up = self.open.get((calls.parent, part.call))
                if given_up is not None and (given_up.by.epoch, given_up.by.no) < now:
                    del self.open[calls.parent, part.call]

    def settle(self) -> None:
        """Remove ready items, which no worker holds (AB1); request those that have not started."""
        for (path, call), given_up in list(self.open.items()):
            parent = self.state.parents.get(path)
            if parent is None or self._settle(parent, call, given_up):
                del self.open[path, call]

    def _settle(self, parent: ParentFacts, call: int, given_up: _GivenUp) -> bool:
        """Return whether a batch is over."""
        find = self.scheduler.find
        batch = find(parent.path, call)
        if batch is not None and (batch.ready or not batch.facts.undone):
            self._take_out(batch)  # if nothing is left: its end is recorded (AB4)
            batch = find(parent.path, call)
        if batch is None:
            self._tell(wire.Abandoned(parent.path, call, EVERYTHING), parent)
            return True
        for lease in batch.leases:
            if lease.busy() and lease.attempt not in given_up.asked:
                given_up.asked.add(lease.attempt)
                lease.retracting = True
                # After the grant of this lease, which may wait for a commit.
                self.outbox.send(lease.peer.id, wire.encode(wire.Retract(lease.attempt)))
        return False

    def _take_out(self, batch: OpenBatch) -> None:
        """Abandon the ready items of a batch; the record says which they are (AB2)."""
        record = wire.Abandoned(batch.parent.path, batch.call, list(batch.ready))
        self.ledger.abandon(batch, record)
        if record.spans:
            self._tell(record, batch.parent)

    def _tell(self, record: wire.Abandoned, parent: ParentFacts) -> None:
        self.ledger.tell(parent, wire.encode(record))
