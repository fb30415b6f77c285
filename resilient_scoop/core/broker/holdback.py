"""Ready items that are not assigned: before a hand-over, those below a parent that has saved.

`OpenBatch.held_back_except`: None if any item may be assigned, else only these. It is checked
whenever the scheduler handles the batch (invariant H5 of `core.broker.handover`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from resilient_scoop import ids

if TYPE_CHECKING:
    from resilient_scoop.core.broker.leases import OpenBatch


def available(batch: OpenBatch, start: int, stop: int) -> int:
    """Return how many of the items `[start, stop)` are ready and may be assigned."""
    if batch.held_back_except is not None:
        return sum(
            start <= index < stop for index in batch.held_back_except if index in batch.ready
        )
    return sum(high - low for low, high in batch.ready.overlap(start, stop))


@dataclass(slots=True)
class Awaited:
    """The parents that are asked for a checkpoint; the handover updates it, the scheduler reads it."""

    hands_over: bool = False  # the run stops when all have saved
    waiting: dict[str, int] = field(default_factory=dict)  # path -> where the log ended when named
    # parents that have saved, while others are awaited
    through: set[str] = field(default_factory=set)

    @property
    def holds_back(self) -> bool:
        """Whether any item is held back."""
        return self.hands_over and bool(self.through)

    def held_back_except(self, batch: OpenBatch) -> set[int] | None:
        """Return which items of a batch may be assigned; None: any (H5)."""
        if not self.holds_back:
            return None
        above = list(ids.lineage(batch.parent.path))
        if self.through.isdisjoint(above) or not self.waiting.keys().isdisjoint(above):
            return None
        places = map(ids.parse_item, self.waiting)
        mine = (batch.parent.path, batch.call)
        return {place[2] for place in places if place is not None and place[:2] == mine}


class HoldBack:
    """The batches of which items are held back."""

    def __init__(self, awaited: Awaited) -> None:
        self.awaited = awaited
        self._batches: list[OpenBatch] = []

    def look(self, batch: OpenBatch) -> int:
        """Update which items may be assigned; return by how many ready items this has grown."""
        exempt = self.awaited.held_back_except(batch)
        if exempt == batch.held_back_except:
            return 0
        if batch.held_back_except is None:
            self._batches.append(batch)
        before = available(batch, 0, 1 << 62)
        batch.held_back_except = exempt
        return available(batch, 0, 1 << 62) - before

    def check(self) -> None:
        """Assert that nothing is held back that a parent which is waited for may need (H5)."""
        for batch in self._batches:
            needed = not self.awaited.waiting.keys().isdisjoint(ids.lineage(batch.parent.path))
            assert batch.held_back_except is None or not needed, (
                f"H5 {batch.parent.path}.{batch.call}"
            )

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
