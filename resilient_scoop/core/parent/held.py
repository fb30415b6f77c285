"""Items that a replay has made but not sent, because its history may settle them."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from resilient_scoop import ids
from resilient_scoop.core.facts.intervals import Intervals
from resilient_scoop.wire.messages import Part

if TYPE_CHECKING:
    from collections.abc import Iterable

Items = tuple[Part, list[bytes]]
"""Items that wait to be sent, and their arguments."""


class HeldItems:
    """The items that are held, by call; none of them is settled."""

    __slots__ = ("_items",)

    def __init__(self) -> None:
        self._items: dict[int, list[Items]] = {}

    def hold(self, part: Part, args: list[bytes]) -> None:
        """Keep items until the history is at its end."""
        self._items.setdefault(part.call, []).append((part, args))

    def take(self, number: int) -> list[Items]:
        """Take out the items of a call, to be sent."""
        return self._items.pop(number, [])

    def calls(self) -> list[int]:
        """Return the calls that have items here, in the order in which they were made."""
        return list(self._items)

    def has(self, number: int) -> bool:
        """Return whether items of a call are here."""
        return number in self._items

    def settle(self, number: int, low: int, high: int) -> None:
        """Drop held items that the history has settled."""
        kept = _cut_out(self._items.get(number, ()), low, high)
        if kept:
            self._items[number] = kept  # in its place
        else:
            self._items.pop(number, None)

    def others(self, number: int, low: int, high: int) -> list[tuple[int, int]]:
        """Return which of the items `[low, high)` of a call are not here."""
        held = self._items.get(number, ())
        return Intervals((part.start, part.start + part.count) for part, _ in held).gaps(low, high)

    def forget(self, number: int) -> None:
        """Drop the items of a call."""
        self._items.pop(number, None)

    def clear(self) -> None:
        """Drop everything."""
        self._items.clear()


def _cut_out(held: Iterable[Items], low: int, high: int) -> list[Items]:
    """Return what is left of parts and their arguments without the items `[low, high)`."""
    kept: list[Items] = []
    for part, args in held:
        start, stop = part.start, part.start + part.count
        if stop <= low or high <= start:
            kept.append((part, args))
            continue
        for a, b in ((start, min(low, stop)), (max(high, start), stop)):
            if a < b:
                digests = ids.digests_of(part.digests, a - start, b - start)
                last = part.last and b == stop
                piece = Part(part.call, a, b - a, part.fn, digests, last, part.fresh)
                kept.append((piece, args[a - start : b - start]))
    return kept


def with_fresh(part: Part, args: list[bytes], fresh: Intervals) -> list[Items]:
    """Return a part cut into runs of items that are called again and of others."""
    stop = part.start + part.count
    runs = fresh.overlap(part.start, stop)
    if not runs:
        return [(part, args)]
    cuts = sorted({part.start, stop, *(bound for run in runs for bound in run)})
    pieces: list[Items] = []
    for low, high in pairwise(cuts):
        a, b = low - part.start, high - part.start
        digests = ids.digests_of(part.digests, a, b)
        last = part.last and high == stop
        piece = Part(part.call, low, b - a, part.fn, digests, last, low in fresh)
        pieces.append((piece, args[a:b]))
    return pieces
