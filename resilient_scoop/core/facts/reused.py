"""Which results a broker found in the journal, and how many of them still stand.

A recovered result is computed again where its parent asks for another call in its place: changed code
or arguments, a shorter map. What a run says that it took from the journal are the others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from resilient_scoop import ids
from resilient_scoop.core.facts.checkpoints import items_within
from resilient_scoop.core.facts.intervals import Intervals

if TYPE_CHECKING:
    from resilient_scoop.core.facts.state import Batch, State


class Reused:
    """What was done when a broker began, less what has been asked for anew since."""

    def __init__(self) -> None:
        self.count = 0
        self._counts: dict[str, int] = {}  # the same, by parent
        self._calls: dict[str, Intervals] = {}  # parent -> calls of which all items were done
        self._items: dict[tuple[str, int], Intervals] = {}  # of other calls, those that were

    def begin(self, state: State) -> None:
        """Take all that is done now for found."""
        self.count = state.items_done
        for path, parent in state.parents.items():
            calls = self._calls[path] = Intervals(parent.finished)
            for low, high in parent.dropped:
                calls.discard(low, high)
            count = parent.dropped_items + sum(items_within(parent, *run) for run in calls)
            for call, batch in parent.batches.items():
                self._items[path, call] = Intervals(batch.done)
                count += batch.done.count()
            self._counts[path] = count

    def lose(self, batch: Batch, low: int, high: int) -> None:
        """The done items of `[low, high)` are about to be others."""
        path, call = key = batch.parent.path, batch.call
        if path not in self._counts:
            return
        if call in self._calls[path]:
            self._calls[path].discard(call, call + 1)
            self._items[key] = Intervals(batch.done)
        found = self._items.get(key, Intervals())
        for start, stop in found.overlap(low, high):
            self.count -= stop - start
            self._counts[path] -= stop - start
            found.discard(start, stop)

    def lose_below(self, state: State, path: str, call: int, low: int, high: int) -> None:
        """Undone items are about to be others, and with them all that hangs below them."""
        heap = [
            ids.item_path(path, call, index) for index in state.kids_within(path, call, low, high)
        ]
        while heap:
            each = heap.pop()
            heap += state.kids.get(each, ())
            self.count -= self._counts.pop(each, 0)
