"""A process that is asked for checkpoints: what it was asked, and what it has answered.

Whom the broker asks and waits for: `core.broker.handover`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from resilient_scoop.wire import messages as wire

if TYPE_CHECKING:
    from resilient_scoop.core.parent.parent import Parent


class CheckpointRequests:
    """The requests to one process, and its last answer."""

    def __init__(self) -> None:
        self.count = 0  # how often it was asked
        self._no = 0
        self._said: list[str] | None = None

    def hear(self, wanted: wire.CheckpointWanted) -> None:
        """Take in that checkpoints are wanted; the same wish comes again where a link was broken."""
        if wanted.no > self._no:
            self._no, self._said = wanted.no, None
            self.count += 1

    def answer(self, parents: dict[str, Parent]) -> list[bytes]:
        """Return what is to be said, behind whatever the parents themselves say."""
        if not self._no:
            return []
        found = sorted(path for path, parent in list(parents.items()) if parent.durable.open)
        if found == self._said:
            return []
        self._said = found
        return [wire.encode(wire.OpenBlocks(self._no, found))]

    def meet(self) -> None:
        """The broker is a new one: it asks for itself."""
        self._no, self._said = 0, None
