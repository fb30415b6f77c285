"""A process that is asked for checkpoints: the requests to it, and its answers.

`core.broker.handover` decides which processes are asked and waited for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from resilient_scoop.wire import messages as wire

if TYPE_CHECKING:
    from resilient_scoop.core.parent.parent import Parent


class CheckpointRequests:
    """The requests to one process, and its last answer."""

    def __init__(self) -> None:
        self.count = 0  # number of requests
        self._no = 0
        self._announced: list[str] | None = None

    def hear(self, wanted: wire.CheckpointWanted) -> None:
        """Record a request; it may be repeated after a broken link."""
        if wanted.no > self._no:
            self._no, self._announced = wanted.no, None
            self.count += 1

    def answer(self, parents: dict[str, Parent]) -> list[bytes]:
        """Return the answers to send, after the messages of the parents themselves."""
        if not self._no:
            return []
        found = sorted(path for path, parent in list(parents.items()) if parent.durable.open)
        if found == self._announced:
            return []
        self._announced = found
        return [wire.encode(wire.OpenBlocks(self._no, found))]

    def meet(self) -> None:
        """Handle a new broker: it will send its own request."""
        self._no, self._announced = 0, None
