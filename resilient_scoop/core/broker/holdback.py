"""Ready items that are not assigned: before a hand-over, those below a parent that has saved.

`OpenBatch.held_back_except`: None if any item may be assigned, else only these. It is checked
whenever the scheduler handles the batch (invariant H5 of `core.broker.handover`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from resilient_scoop.core.broker.leases import OpenBatch


def available(batch: OpenBatch, start: int, stop: int) -> int:
    """Return how many of the items `[start, stop)` are ready and may be assigned."""
    if batch.held_back_except is not None:
        return sum(
            start <= index < stop for index in batch.held_back_except if index in batch.ready
        )
    return sum(high - low for low, high in batch.ready.overlap(start, stop))


class HoldBack:
    """The batches with items that are held back."""

    def __init__(self) -> None:
        self.asked: Callable[[OpenBatch], set[int] | None] | None = None
        self._batches: list[OpenBatch] = []

    def look(self, batch: OpenBatch) -> int:
        """Update which items may be assigned; return by how many ready items this has grown."""
        exempt = None if self.asked is None else self.asked(batch)
        if exempt == batch.held_back_except:
            return 0
        if batch.held_back_except is None:
            self._batches.append(batch)
        before = available(batch, 0, 1 << 62)
        batch.held_back_except = exempt
        return available(batch, 0, 1 << 62) - before

    def release(self) -> list[tuple[OpenBatch, int]]:
        """Release all held-back items until the next check; return batches, and how many items of each."""
        batches, self._batches = self._batches, []
        found = []
        for batch in batches:
            if batch.held_back_except is not None:
                before = available(batch, 0, 1 << 62)
                batch.held_back_except = None
                found.append((batch, available(batch, 0, 1 << 62) - before))
        return found
