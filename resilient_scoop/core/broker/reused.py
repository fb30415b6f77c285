"""The results that a broker found in the journal, and how many of them still count.

A recovered result is computed again if its parent makes another call in its place: changed code or
arguments, a shorter map. The others are the results that a run reports as taken from the journal,
with those that are found by function and arguments.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from resilient_scoop.core.facts.intervals import Intervals

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from resilient_scoop.core.facts.parent import ParentFacts
    from resilient_scoop.wire import messages as wire


class Reused:
    """Items that were done when a broker started, less those called again since."""

    def __init__(self, parents: Iterable[ParentFacts], items_done: int) -> None:
        """Count all items that are done now as found."""
        self.count = items_done
        self._counts: dict[str, int] = {}  # the same, by parent
        self._calls: dict[str, Intervals] = {}  # parent -> calls of which all items were done
        self._items: dict[tuple[str, int], Intervals] = {}  # of other calls, those that were
        for parent in parents:
            path = parent.path
            calls = self._calls[path] = Intervals(parent.finished)
            for low, high in parent.dropped:
                calls.discard(low, high)
            for call, batch in parent.batches.items():
                self._items[path, call] = Intervals(batch.done)
            self._counts[path] = parent.done_items()

    def find(self, path: str, outcome: wire.Outcome, spans: Iterable[tuple[int, int]]) -> None:
        """Count the items of an outcome that a parent has found at another position."""
        if outcome.task is not None:
            return  # it was computed
        if path not in self._counts:
            self._counts[path], self._calls[path] = 0, Intervals()
        found = self._items.setdefault((path, outcome.call), Intervals())
        for start, stop in spans:
            found.add(start, stop)
            self.count += stop - start
            self._counts[path] += stop - start

    def lose(self, path: str, call: int, lost: Sequence[tuple[int, int]], kept: Intervals) -> None:
        """Stop counting done items of a batch, except `kept`."""
        if path not in self._counts:
            return
        key = path, call
        if call in self._calls[path]:
            self._calls[path].discard(call, call + 1)
            self._items[key] = Intervals([*kept, *lost])
        found = self._items.get(key, Intervals())
        for low, high in lost:
            for start, stop in found.overlap(low, high):
                self.count -= stop - start
                self._counts[path] -= stop - start
                found.discard(start, stop)

    def lose_below(self, paths: Iterable[str], kids: Mapping[str, Collection[str]]) -> None:
        """Stop counting everything below parents that are about to change (`kids`)."""
        heap = list(paths)
        while heap:
            each = heap.pop()
            heap += kids.get(each, ())
            self.count -= self._counts.pop(each, 0)
