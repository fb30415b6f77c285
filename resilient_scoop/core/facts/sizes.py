"""The number of items of each finished batch of a parent, in little memory.

A parent of a month makes millions of calls, and most of them are alike. Runs of neighbors with the
same size cost three numbers (24 bytes) together; calls of one item, which is what a submit is, cost
nothing.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right


class Sizes:
    """A map from call numbers to sizes; what is not in it has `ONE` item."""

    __slots__ = ("_sizes", "_starts", "_stops")

    ONE = 1

    def __init__(self) -> None:
        self._starts = array("q")  # sorted, disjoint; neighbors of the same size are one run
        self._stops = array("q")
        self._sizes = array("q")

    def __len__(self) -> int:
        """Return the number of runs, which is its cost."""
        return len(self._starts)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sizes):
            return NotImplemented
        mine = self._starts, self._stops, self._sizes
        return mine == (other._starts, other._stops, other._sizes)

    __hash__ = None  # type: ignore[assignment]  # it changes

    __iter__ = None  # else Python would try call after call, without end

    def __getitem__(self, call: int) -> int:
        at = bisect_right(self._starts, call) - 1
        return self._sizes[at] if at >= 0 and call < self._stops[at] else self.ONE

    def __setitem__(self, call: int, size: int) -> None:
        at = bisect_right(self._starts, call)
        if at and call < self._stops[at - 1]:
            if self._sizes[at - 1] == size:
                return
            self.forget(call)
            at = bisect_right(self._starts, call)
        if size == self.ONE:
            return
        before = at > 0 and self._stops[at - 1] == call and self._sizes[at - 1] == size
        after = at < len(self) and self._starts[at] == call + 1 and self._sizes[at] == size
        if before and after:
            self._stops[at - 1] = self._stops[at]
            self._remove(at)
        elif before:
            self._stops[at - 1] = call + 1
        elif after:
            self._starts[at] = call
        else:
            self._insert(at, call, call + 1, size)

    def forget(self, call: int) -> None:
        """Remove a batch."""
        at = bisect_right(self._starts, call) - 1
        if at < 0 or call >= self._stops[at]:
            return
        start, stop, size = self._starts[at], self._stops[at], self._sizes[at]
        self._remove(at)
        if call + 1 < stop:
            self._insert(at, call + 1, stop, size)
        if start < call:
            self._insert(at, start, call, size)

    def runs(self, low: int, high: int) -> list[tuple[int, int, int]]:
        """Return the runs (start, stop, size) within `[low, high)` of calls that have not one item."""
        at = max(0, bisect_right(self._starts, low) - 1)
        found = []
        while at < len(self) and self._starts[at] < high:
            start, stop = max(low, self._starts[at]), min(high, self._stops[at])
            if start < stop:
                found.append((start, stop, self._sizes[at]))
            at += 1
        return found

    def forget_span(self, low: int, high: int) -> None:
        """Take out all calls `[low, high)` (a checkpoint covers them)."""
        for start, stop, size in self.runs(low, high):
            at = bisect_right(self._starts, start) - 1
            first, last = self._starts[at], self._stops[at]
            self._remove(at)
            if stop < last:
                self._insert(at, stop, last, size)
            if first < start:
                self._insert(at, first, start, size)

    def _insert(self, at: int, start: int, stop: int, size: int) -> None:
        self._starts.insert(at, start)
        self._stops.insert(at, stop)
        self._sizes.insert(at, size)

    def _remove(self, at: int) -> None:
        for column in (self._starts, self._stops, self._sizes):
            del column[at]
