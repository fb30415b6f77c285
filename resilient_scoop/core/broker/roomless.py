"""Who waits until the disk has space, as the broker was told."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from resilient_scoop.core.broker.leases import Peer
    from resilient_scoop.core.broker.scheduler import Scheduler
    from resilient_scoop.ids import PeerId
    from resilient_scoop.wire.messages import NoRoom


class Roomless:
    """The processes that have no space for a file that they are to write."""

    def __init__(self, scheduler: Scheduler) -> None:
        self.said: dict[PeerId, NoRoom] = {}
        self._scheduler = scheduler

    def hear(self, peer: Peer, said: NoRoom) -> None:
        """A process has no space for a file, or has it now."""
        peer.stuck = said.result and said.size_bytes > 0
        if said.size_bytes:
            self.said[peer.id] = said
        else:
            self.said.pop(peer.id, None)

    def holds_back(self) -> bool:
        """Tell whether nothing is to be started for want of space.

        So it is while a worker cannot write a result. But the files of arguments go as their items
        are done: where nobody else computes, somebody must.
        """
        if not any(each.result for each in self.said.values()):
            return False
        workers = self._scheduler.workers.values()
        return any(peer.items > 0 for peer in workers if peer.id not in self.said)
