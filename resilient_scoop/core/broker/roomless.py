"""Processes that wait for disk space, as reported to the broker."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from resilient_scoop.core.broker.leases import Peer
    from resilient_scoop.core.broker.scheduler import Scheduler
    from resilient_scoop.ids import PeerId
    from resilient_scoop.wire.messages import NoRoom


class Roomless:
    """The processes without space for a file."""

    def __init__(self, scheduler: Scheduler) -> None:
        self.reported: dict[PeerId, NoRoom] = {}
        # hosts of such processes on other hosts: only these are affected
        self.elsewhere: dict[PeerId, NoRoom] = {}
        self._scheduler = scheduler

    def hear(self, peer: Peer, report: NoRoom) -> None:
        """Note that a process has no space for a file, or has space again."""
        peer.stuck = report.result and report.size_bytes > 0
        full = self.reported if peer.host is None else self.elsewhere
        if report.size_bytes:
            full[peer.id] = report
        else:
            full.pop(peer.id, None)

    def forget(self, peer: PeerId) -> None:
        """Forget a process that has ended."""
        self.reported.pop(peer, None)
        self.elsewhere.pop(peer, None)

    def holds_back(self) -> bool:
        """Return whether no item may be started because space is missing.

        This holds while a worker cannot write a result. But files of arguments are removed when
        their items are done: if no other worker computes, items must be started.
        """
        if not any(each.result for each in self.reported.values()):
            return False
        workers = self._scheduler.workers.values()
        return any(peer.items > 0 for peer in workers if peer.id not in self.reported)
