"""One batch of a parent: its items, and what is settled."""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from operator import itemgetter
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from resilient_scoop.core.facts.intervals import Intervals
from resilient_scoop.wire.payload_tags import FILE

if TYPE_CHECKING:
    from resilient_scoop.wire.messages import Outcome


_tag = itemgetter(slice(1))
_NO_ITEMS: Final[frozenset[int]] = frozenset()


class OutcomeChunk(msgspec.Struct, gc=False):
    """Outcomes of consecutive items; `failed` holds item numbers."""

    start: int
    stop: int
    values: list[bytes]
    failed: frozenset[int]
    arrival: int

    @classmethod
    def of(cls, outcome: Outcome, low: int, high: int, arrival: int) -> OutcomeChunk:
        """Return an outcome's part for items `[low, high)`."""
        a, b = low - outcome.start, high - outcome.start
        values = outcome.values if b - a == len(outcome.values) else outcome.values[a:b]
        failed = _NO_ITEMS
        if outcome.failed:
            failed = frozenset(low + i - a for i in outcome.failed if a <= i < b)
        return cls(low, high, values, failed, arrival)

    def part(self, low: int, high: int) -> OutcomeChunk:
        """Return items `[low, high)` of it."""
        if (low, high) == (self.start, self.stop):
            return self
        values = self.values[low - self.start : high - self.start]
        failed = frozenset(index for index in self.failed if low <= index < high)
        return OutcomeChunk(low, high, values, failed, self.arrival)

    @property
    def has_files(self) -> bool:
        """Whether values are in files, which are removed with the last record that names them."""
        return FILE in map(_tag, self.values)


class ReusedOutcome(NamedTuple):
    """Items whose journaled outcome belongs to another call."""

    low: int
    high: int
    what: str  # how it differs
    once: bool  # it is `idempotent=False`
    took_s: float  # seconds of computing per item; 0 if nothing is lost because it is found again


_NONE: Final = Intervals()
"""Represents no items; never changed."""


class Call:
    """One batch of the parent: its items, and what is settled."""

    __slots__ = (
        "__weakref__",
        "abandoned",
        "args",
        "chunks",
        "cost_bytes",
        "count",
        "digests",
        "doubts",
        "earlier",
        "files",
        "fingerprint",
        "fn",
        "fresh",
        "is_reported",
        "last",
        "left",
        "moved",
        "number",
    )  # fmt: skip

    def __init__(self, number: int, fn: bytes, fingerprint: bytes) -> None:
        self.number = number
        self.fn = fn
        # Rarely used parts are made on demand: a script may hold very many calls.
        # definitions with which earlier items were sent
        self.earlier: frozenset[bytes] = frozenset()
        self.fingerprint = fingerprint
        self.count = 0
        self.last = False
        self.digests = bytearray()
        self.left = Intervals()
        self.chunks: list[OutcomeChunk] = []
        self.args: dict[int, bytes] | None = None  # P4
        self.cost_bytes = 0
        self.fresh = _NONE  # items called again
        self.doubts: tuple[ReusedOutcome, ...] = ()
        self.is_reported = False
        self.abandoned = False  # the rest is not read (`core.parent.given_up`)
        self.moved = 0  # items that keep a result from another place
        self.files: dict[int, int] | None = None  # unsettled items -> size of the argument's file

    def call_again(self, start: int, stop: int) -> list[tuple[int, int]]:
        """Record that items are called again; return those that were not before."""
        found = self.fresh.gaps(start, stop)
        if self.fresh is _NONE:
            self.fresh = Intervals()
        self.fresh.add(start, stop)
        return found

    def abandon(self) -> None:
        """Keep only what is left of it."""
        self.abandoned = True
        self.chunks.clear()
        self.doubts, self.fresh = (), _NONE
        self.digests, self.args = bytearray(), None

    def use(self, fn: bytes) -> None:
        """Send further items with another definition of the same callable, of the same fingerprint."""
        if fn != self.fn:
            self.earlier |= {self.fn}
            self.fn = fn

    def find(self, index: int) -> OutcomeChunk | None:
        """Return the chunk that settles an item, or None."""
        chunks = self.chunks
        if not chunks:
            return None
        if chunks[0].start <= index < chunks[0].stop:  # as for a submit
            return chunks[0]
        at = bisect_right(chunks, index, key=lambda chunk: chunk.start) - 1
        if at >= 0 and index < self.chunks[at].stop:
            return self.chunks[at]
        return None

    def put(self, chunk: OutcomeChunk) -> None:
        """Add a chunk of items that no other chunk holds."""
        if not self.chunks or self.chunks[-1].start < chunk.start:
            self.chunks.append(chunk)
        else:
            at = bisect_right(self.chunks, chunk.start, key=lambda each: each.start)
            self.chunks.insert(at, chunk)

    def take(self, start: int, stop: int) -> list[OutcomeChunk]:
        """Remove the outcomes of items `[start, stop)` from the call and return them; all are there."""
        taken: list[OutcomeChunk] = []
        while start < stop:
            at = bisect_right(self.chunks, start, key=lambda each: each.start) - 1
            chunk = self.chunks[at]
            assert chunk.start <= start < chunk.stop, "only what is settled is taken"
            end = min(stop, chunk.stop)
            cuts = (chunk.start, start), (start, end), (end, chunk.stop)
            before, mine, after = (chunk.part(low, high) for low, high in cuts)
            self.chunks[at : at + 1] = [part for part in (before, after) if part.values]
            taken.append(mine)
            start = end
        return taken


class Watch:
    """The calls of a parent that got outcomes, until they are read.

    The parent notifies it as long as it is referenced. Code that adds a call checks afterwards whether
    it is settled: an outcome is put into its call first, then watches are notified.
    """

    __slots__ = ("__weakref__", "arrived", "calls")

    def __init__(self) -> None:
        self.calls: set[int] = set()
        self.arrived: deque[int] = deque()

    def hear(self, number: int) -> None:
        """Note that a call got an outcome."""
        if number in self.calls:
            self.arrived.append(number)
