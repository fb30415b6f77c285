"""`Future.cancel()` at the broker: a question stays open until the state of the item is known.

The state of the item of an open question, and the answer:

  ready                       canceled: yes
  done                        yes if that was its cancellation, else no
  leased, waits for others    started: no
  leased                      the holder is asked, once per lease: `Retract` from this item on
    Returned from this item   ready again
    Returned says it started  no
    holder lost, fenced, ...  ready again, leased again or done

  CN1  A yes is sent only after the record of the item's cancellation, which is its outcome.
  CN2  An item is canceled only while no worker holds it, so no worker starts it afterwards; right after a
       restart, this is unknown until the workers have arrived. A host that counts as lost or was cut off
       may still start its items; their outcomes do not count.
  CN3  Questions are volatile. A parent asks a new broker again what is not answered; the answer is sent to
       the process that then runs the parent.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from resilient_scoop import ids
from resilient_scoop.wire import messages as wire
from resilient_scoop.wire.broker_errors import broker_error

if TYPE_CHECKING:
    from resilient_scoop.core.broker.leases import Lease, OpenBatch, Peer
    from resilient_scoop.core.broker.ledger import Ledger
    from resilient_scoop.core.facts.parent import ParentFacts


class _Question(msgspec.Struct):
    batch: OpenBatch
    index: int
    digest: bytes  # of the item in question
    asked: wire.Attempt | None = None  # the lease whose holder was asked
    begun: bool = False  # and its answer


class Cancellations:
    """The open questions of one epoch of the broker."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.state = ledger.state
        self.outbox = ledger.outbox
        self.scheduler = ledger.scheduler
        self.open: dict[tuple[str, int, int], _Question] = {}

    def ask(self, peer: Peer, wanted: wire.Cancel) -> None:
        """Record a parent's question; `settle` answers it as soon as possible. Nothing is logged (CN3)."""
        if not self.ledger.current(peer, wanted.parent, wanted.attempt):
            return
        parent = self.state.parent(wanted.parent)
        batch = self.scheduler.find(wanted.parent, wanted.call)
        key = wanted.parent, wanted.call, wanted.index
        if batch is None or wanted.index not in batch.facts.undone:
            self.open.pop(key, None)  # asked before; answered once
            self._answer(parent, wanted.call, wanted.index)
            return
        digest = batch.facts.digests_of(wanted.index, wanted.index + 1)
        self.open[key] = _Question(batch, wanted.index, digest)

    def begun(self, attempt: wire.Attempt, index: int) -> None:
        """Record that the holder has started the item."""
        for question in self.open.values():
            if question.asked == attempt and question.index == index:
                question.begun = True

    def settle(self) -> None:
        """Answer what can be answered, and ask the holders. No worker holds a ready item (CN2)."""
        for key, question in list(self.open.items()):
            if self._settle(question):
                del self.open[key]

    def _settle(self, question: _Question) -> bool:
        """Return whether a question is closed."""
        batch, index = question.batch, question.index
        parent = batch.parent
        if self.state.parents.get(parent.path) is not parent:
            return True  # the answer is no longer wanted
        if not self._is_meant(question):
            self._answer(parent, batch.call, index)
            return True
        if index in batch.ready:
            self._cancel(batch, index)
            self._answer(parent, batch.call, index)
            return True
        lease = next(each for each in batch.leases if index in each.left)  # B1
        if index in lease.parked or (question.begun and question.asked == lease.attempt):
            self._answer(parent, batch.call, index)
            return True
        if question.asked != lease.attempt:
            self._ask_holder(question, lease)
        return False

    def _is_meant(self, question: _Question) -> bool:
        """Return whether the item is undone, and still the one in question."""
        batch, index = question.batch, question.index
        facts = batch.facts
        if batch.parent.batches.get(batch.call) is not facts or index not in facts.undone:
            return False
        return facts.digests_of(index, index + 1) == question.digest

    def _ask_holder(self, question: _Question, lease: Lease) -> None:
        question.asked, question.begun = lease.attempt, False
        # After the grant of this lease, which may wait for a commit.
        retract = wire.Retract(lease.attempt, question.index)
        self.outbox.send(lease.peer.id, wire.encode(retract))

    def _cancel(self, batch: OpenBatch, index: int) -> None:
        """End an item as canceled; the answer waits for the commit of that outcome (CN1)."""
        path = ids.item_path(batch.parent.path, batch.call, index)
        self.ledger.settle_error(batch, index, broker_error("cancelled", path))

    def _answer(self, parent: ParentFacts, call: int, index: int) -> None:
        cancelled = index in parent.cancelled.get(call, ())
        answer = wire.CancelAnswer(parent.path, call, index, cancelled)
        self.ledger.tell(parent, wire.encode(answer))
