"""Checks of requested checkpoints: each parent with an open block has saved before a hand-over."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from resilient_scoop import ids
from resilient_scoop.core.facts.checkpoints import newest
from tests.sim.cancels import Broken

if TYPE_CHECKING:
    from resilient_scoop.core.broker.broker import Broker
    from resilient_scoop.core.broker.handover import Handover
    from resilient_scoop.wire import messages as wire
    from tests.sim.shells import BrokerShell
    from tests.sim.world import World

Made = tuple[str, str, int, int]  # path, name, opening, generation


@dataclass
class _Owed:
    peer: bytes
    since: int  # only checkpoints made after this point count


class Saves:
    """Records which processes are asked, which checkpoints are made, and which of them are durable."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.count = 0
        self.checked = 0  # parents that had to save before a hand-over
        self._made: dict[Made, int] = {}
        self._durable: dict[str, int] = {}  # path -> the latest durable checkpoint
        self._owed: dict[str, _Owed] = {}
        # (request, path): checkpoints made before it
        self._asked_at: dict[tuple[int, str], int] = {}
        self._due: dict[str, _Owed] = {}  # when the broker decided that the request is over
        # (request, path): its checkpoints at that time
        self._named: dict[tuple[int, str], int] = {}

    def made(self, what: Made) -> None:
        self.count += 1
        self._made[what] = self.count

    def committed(self, record: wire.Checkpoint) -> None:
        made = self._made[record.parent, record.name, record.opening, record.gen]
        self._durable[record.parent] = max(made, self._durable.get(record.parent, 0))

    def asked(self, peer: bytes, path: str, no: int) -> None:
        """Record a request to a process in which this parent has an open block.

        If its next holder gets the same request, checkpoints made since the first request count.
        """
        since = self._asked_at.setdefault((no, path), self.count)
        self._owed[path] = _Owed(peer, since)

    def left(self, path: str) -> None:
        """Note that a parent has left its last block, or is done."""
        self._owed.pop(path, None)

    def lost(self, peer: bytes, path: str = "") -> None:
        """Note that a process has lost a parent, or is dead.

        Only parents that the broker knew still have to save.
        """
        broker = self.world.broker
        known = broker is not None and broker.alive and broker.open
        waited = broker.broker.handover.awaited.waiting if broker is not None and known else {}
        for each, owed in list(self._owed.items()):
            if owed.peer == peer and path in ("", each):
                if each in waited:
                    owed.peer = b""  # independent of the next holder
                else:
                    del self._owed[each]

    def _waits(self, path: str) -> bool:
        """Return whether this broker has waited for a parent since the request."""
        assert self.world.broker is not None, "a broker decides"
        return (self.world.broker.broker.handover.no, path) in self._named

    def _awaited(self) -> set[bytes]:
        """Return the processes that a new broker expects and that have not arrived yet."""
        assert self.world.broker is not None, "a broker decides"
        return self.world.broker.broker.membership._awaited or set()

    def decided(self, handover: Handover) -> None:
        """Check a decision of the broker to stop all processes."""
        members, scheduler = handover.members, handover.scheduler
        known = {
            path: owed
            for path, owed in self._owed.items()
            # From other parents the broker has received nothing that could be lost if it does not wait
            # for them. The same holds for a new broker and parents whose process died under the last
            # broker.
            if path in scheduler.state.parents
            and (owed.peer in members.peers or owed.peer in self._awaited() or self._waits(path))
        }
        self._due, self._owed = (known if handover.is_whole else {}), {}

    def turned(self, shell: BrokerShell, granted: list[str]) -> None:
        """Check the items that a broker has granted in a turn before a hand-over."""
        broker = shell.broker
        handover, parents = broker.handover, broker.state.parents
        if not handover.is_active:
            self._named.clear()
            return
        for path in handover.awaited.waiting:
            saved = newest(parents[path]) if path in parents else 0
            self._named.setdefault((handover.no, path), saved)
        for path in handover.awaited.through:  # known and saved in the same turn
            if path in parents:
                self._named.setdefault((handover.no, path), newest(parents[path]) - 1)
        if not handover.awaited.hands_over:
            return
        for path in granted:
            if not self._is_of_use(broker, path):
                raise Broken(f"HAND-OVER: {path} is granted, though what it is for has saved")
        workers = broker.scheduler.workers.values()
        idle = [peer for peer in workers if not (peer.leases or peer.stuck)]
        halted = broker.busy_disk or broker.membership.stopping
        if not idle or halted or broker.membership._awaited is not None:
            return
        for batch in broker.scheduler.batches.values():
            for index in [index for span in batch.ready for index in range(*span)]:
                path = ids.item_path(batch.parent.path, batch.call, index)
                if self._is_of_use(broker, path):
                    raise Broken(f"HAND-OVER: {path} is of use, and waits for {idle[0].name}")

    def _is_of_use(self, broker: Broker, path: str) -> bool:
        """Return whether an unsaved parent may need an item to reach a commit, or no parent has saved."""
        chain = list(ids.lineage(path))
        if any(each in broker.handover.awaited.waiting for each in chain):
            return True
        return not any(self._has_saved(broker, each) for each in chain[1:])

    def _has_saved(self, broker: Broker, path: str) -> bool:
        before = self._named.get((broker.handover.no, path))
        parent = broker.state.parents.get(path)
        if before is None:  # known and saved in the same turn
            return path in broker.handover.awaited.through
        return parent is not None and newest(parent) > before

    def handed_over(self) -> None:
        """Check the requested end of the run, when all records are durable."""
        due, self._due = self._due, {}
        for path, each in due.items():
            self.checked += 1
            if self._durable.get(path, 0) <= each.since:
                raise Broken(f"HAND-OVER: {path} had a block open and has not saved")
