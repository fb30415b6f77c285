"""Items that are ready and are not handed out: before a hand-over, what is below a parent that has saved.

`Batch.spared` says it: None where any item may be handed out, else only these. Who may be is asked
of `asked` whenever the batch is looked at (invariant H5 of `core.broker.handover`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from resilient_scoop.core.facts.batch import Batch


def available(batch: Batch, start: int, stop: int) -> int:
    """Return how many of the items `[start, stop)` are ready and may be handed out."""
    if batch.spared is not None:
        return sum(start <= index < stop for index in batch.spared if index in batch.ready)
    return sum(high - low for low, high in batch.ready.overlap(start, stop))


class HoldBack:
    """The batches of which items are held back."""

    def __init__(self) -> None:
        self.asked: Callable[[Batch], set[int] | None] | None = None
        self._batches: list[Batch] = []

    def look(self, batch: Batch) -> int:
        """See which items may be handed out now; return how many more of the ready ones those are."""
        spared = None if self.asked is None else self.asked(batch)
        if spared == batch.spared:
            return 0
        if batch.spared is None:
            self._batches.append(batch)
        before = available(batch, 0, 1 << 62)
        batch.spared = spared
        return available(batch, 0, 1 << 62) - before

    def release(self) -> list[tuple[Batch, int]]:
        """Hold nothing back until it is looked at again; return batches, and how many more of each."""
        batches, self._batches = self._batches, []
        found = []
        for batch in batches:
            if batch.spared is not None:
                before = available(batch, 0, 1 << 62)
                batch.spared = None
                found.append((batch, available(batch, 0, 1 << 62) - before))
        return found
