"""Sets of item numbers as sorted, disjoint, non-touching half-open intervals.

A million finished items that are neighbors cost one pair of numbers. All operations are in place.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


class Intervals:
    """A set of whole numbers; `starts[k]` and `stops[k]` bound its k-th run."""

    __slots__ = ("starts", "stops")

    def __init__(self, spans: Iterable[tuple[int, int]] = ()) -> None:
        self.starts: list[int] = []
        self.stops: list[int] = []
        if spans:
            for start, stop in spans:
                self.add(start, stop)

    @classmethod
    def run(cls, start: int, stop: int) -> Intervals:
        """Return the set `[start, stop)`, which must not be empty: the cheapest way to make one."""
        made = cls.__new__(cls)
        made.starts = [start]
        made.stops = [stop]
        return made

    def __bool__(self) -> bool:
        return bool(self.starts)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return zip(self.starts, self.stops, strict=True)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Intervals):
            return NotImplemented
        return self.starts == other.starts and self.stops == other.stops

    __hash__ = None  # type: ignore[assignment]  # a mutable set is no key

    def __repr__(self) -> str:
        return f"Intervals({list(self)})"

    def __contains__(self, number: int) -> bool:
        at = bisect_right(self.starts, number) - 1
        return at >= 0 and number < self.stops[at]

    def is_run(self, start: int, stop: int) -> bool:
        """Return whether the set is just `[start, stop)`."""
        return len(self.starts) == 1 and self.starts[0] == start and self.stops[0] == stop

    def end_of(self, number: int) -> int:
        """Return where the run ends that holds a number of the set."""
        return self.stops[bisect_right(self.starts, number) - 1]

    def count(self) -> int:
        """Return how many numbers are in the set."""
        if len(self.starts) == 1:  # by far the most frequent: one run
            return self.stops[0] - self.starts[0]
        return sum(self.stops) - sum(self.starts)

    def add(self, start: int, stop: int) -> None:
        """Add `[start, stop)`; what is already there stays."""
        if start >= stop:
            return
        stops = self.stops
        if not stops or stops[-1] < start:
            self.starts.append(start)
            stops.append(stop)
            return
        if stops[-1] == start:
            stops[-1] = stop
            return
        low = bisect_left(self.stops, start)  # first run that ends at or after start
        high = bisect_right(self.starts, stop)  # first run that begins beyond stop
        if low < high:
            start = min(start, self.starts[low])
            stop = max(stop, self.stops[high - 1])
        self.starts[low:high] = [start]
        self.stops[low:high] = [stop]

    def discard(self, start: int, stop: int) -> None:
        """Remove `[start, stop)`; what is not there is no error."""
        if start >= stop:
            return
        if len(self.starts) == 1 and start <= self.starts[0] and self.stops[0] <= stop:
            self.starts.clear()
            self.stops.clear()
            return
        low = bisect_right(self.stops, start)
        high = bisect_left(self.starts, stop)
        if low >= high:
            return
        starts: list[int] = []
        stops: list[int] = []
        if self.starts[low] < start:
            starts.append(self.starts[low])
            stops.append(start)
        if self.stops[high - 1] > stop:
            starts.append(stop)
            stops.append(self.stops[high - 1])
        self.starts[low:high] = starts
        self.stops[low:high] = stops

    def covers(self, start: int, stop: int) -> bool:
        """Return whether every number of `[start, stop)` is in the set."""
        at = bisect_right(self.starts, start) - 1
        return start >= stop or (at >= 0 and stop <= self.stops[at])

    def overlap(self, start: int, stop: int) -> list[tuple[int, int]]:
        """Return the runs of `[start, stop)` that are in the set."""
        if start >= stop:
            return []
        if len(self.starts) == 1:
            first, last = self.starts[0], self.stops[0]
            first = max(first, start)
            last = min(last, stop)
            return [(first, last)] if first < last else []
        low = bisect_right(self.stops, start)
        high = bisect_left(self.starts, stop)
        return [(max(start, self.starts[k]), min(stop, self.stops[k])) for k in range(low, high)]

    def gaps(self, start: int, stop: int) -> list[tuple[int, int]]:
        """Return the runs of `[start, stop)` that are not in the set."""
        found, at = [], start
        for low, high in self.overlap(start, stop):
            if at < low:
                found.append((at, low))
            at = high
        if at < stop:
            found.append((at, stop))
        return found

    def first(self, count: int) -> tuple[int, int]:
        """Return the lowest run, cut to `count` numbers; IndexError if the set is empty."""
        start = self.starts[0]
        return start, min(self.stops[0], start + count)
