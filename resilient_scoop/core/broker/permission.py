"""AT-MOST-ONCE at the broker: an `idempotent=False` item starts only after its `Intent` is recorded.

| the item                              | journaled                       | if its worker is lost          |
| ready, or granted and not begun       | nothing                         | it is run elsewhere            |
| its worker would begin it, and asks   | `Intent`; then it is permitted  | WorkerLostError                |
| asked, given back without a beginning | a void `Intent`                 | it is run elsewhere            |
| begun                                 | its outcome, at its end         | WorkerLostError                |
| begun, and the run is stopping        | nothing more                    | in doubt until the resume      |

  A1  A worker begins such an item only after `MayBegin` for this very attempt, which waits for the
      commit of its `Intent`. It asks when it would begin at once, and does nothing else until the
      answer is there: so an item that was only queued was never started, and is never reported as started.
  A2  An item with an `Intent` is never ready again in an epoch, once what earlier epochs left in doubt
      is settled: each path on which a lease's items become ready goes through `Ledger.again`. While the run
      stops nothing is handed out, so nothing is given up: the user can record what happened (`rscoop
      resolve`) before a resume settles the item.
  A3  The parent that such an item may be stays with its worker: it is neither moved (`Stuck`) nor
      replayed while it lives (`always_replay`).
  A4  If its arguments are lost, it is not called again: it is given up like others in doubt.

The worker's part is `core.worker.permission`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from resilient_scoop.wire import messages as wire

if TYPE_CHECKING:
    from resilient_scoop.core.broker.leases import OpenBatch, Peer
    from resilient_scoop.core.broker.ledger import Ledger
    from resilient_scoop.core.broker.scheduler import Scheduler


def permit(ledger: Ledger, peer: Peer, wanted: wire.BeginWanted, stopping: str | None) -> None:
    """Journal the start of an item, and tell its worker after the commit (A1).

    If the run is stopping, the worker is told to stop instead.
    """
    if stopping is not None:
        return
    lease = peer.leases.get(wanted.attempt)
    if lease is None or wanted.index not in lease.left:
        ledger.outbox.send(peer.id, wire.encode(wire.Drop([wanted.attempt])))
        return
    batch, index = lease.batch, wanted.index
    if index not in batch.parent.intents.get(batch.call, ()):
        _write(ledger, batch, index, index + 1, void=False)
    ledger.outbox.send(peer.id, wire.encode(wire.MayBegin(wanted.attempt, index)))


def not_begun(ledger: Ledger, batch: OpenBatch, start: int, stop: int) -> None:
    """Handle items that a worker has not started after all: they are not in doubt."""
    intents = batch.parent.intents.get(batch.call)
    for low, high in [] if intents is None else intents.overlap(start, stop):
        _write(ledger, batch, low, high, void=True)


def _write(ledger: Ledger, batch: OpenBatch, start: int, stop: int, *, void: bool) -> None:
    parent = batch.parent
    digests = b"".join(batch.facts.digests_of(index, index + 1) for index in range(start, stop))
    intent = wire.Intent(parent.path, batch.call, start, stop - start, digests, void)
    ledger.record(intent)


def settle_doubts(ledger: Ledger) -> None:
    """Give up items that had started when the last broker ended, and have no holder (A2, A4)."""
    for parent in list(ledger.state.parents.values()):
        for call, intents in list(parent.intents.items()):
            batch = ledger.scheduler.find(parent.path, call)
            for low, high in [] if batch is None else list(batch.ready):
                assert batch is not None, "it has ready items"
                ledger.give_up(batch, intents.overlap(low, high))


def check(scheduler: Scheduler) -> None:
    """Assert that no started item is ready (A2)."""
    for batch in scheduler.batches.values():
        intents = batch.parent.intents.get(batch.call)
        for start, stop in () if intents is None else batch.ready:
            assert intents is not None, "A2"
            where = f"{batch.parent.path}.{batch.call}[{start}]"
            assert not intents.overlap(start, stop), f"A2 {where} is ready"
