"""The members of the run: the connected processes, and the one that runs the script."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from resilient_scoop.core.broker.leases import Peer
    from resilient_scoop.ids import PeerId
    from resilient_scoop.wire.messages import Attempt


class Members:
    """The data of the membership that all parts of the broker read."""

    def __init__(self) -> None:
        self.peers: dict[PeerId, Peer] = {}
        # the script's attempt, and the process that runs it
        self.root: tuple[Attempt, PeerId] | None = None
        self.root_deaths = 0  # of its process, since it last made a call

    def is_root(self, peer: PeerId) -> bool:
        """Return whether a process runs the script."""
        return self.root is not None and self.root[1] == peer
