"""The durable facts of one unfinished batch of a parent."""

from __future__ import annotations

from bisect import bisect_right

import msgspec

from resilient_scoop import ids
from resilient_scoop.core.facts.intervals import Intervals


class Piece(msgspec.Struct):
    """Consecutive items of a batch, with the place of their arguments."""

    start: int
    stop: int
    fn: bytes
    digests: bytes
    record: int  # sequence number of the `Calls` record
    offset: int  # index of the first item's arguments in the record's `Args`
    args: list[bytes] | None = None  # a copy in memory; None: to be read back

    def size(self) -> int:
        """Return the bytes of arguments that it keeps in memory."""
        args = self.args
        if args is None:
            return 0
        if len(args) == 1:
            return len(args[0]) + 64
        return sum(map(len, args)) + 64 * len(args)


class Batch:
    """One batch of a parent, while any of its items is not done."""

    __slots__ = ("call", "done", "last", "pieces", "undone")

    def __init__(self, call: int, whole: Piece | None = None) -> None:
        """Make a batch without items, or one that is this piece and ends with it."""
        self.call = call
        self.pieces: list[Piece] = [] if whole is None else [whole]
        self.undone = Intervals() if whole is None else Intervals.run(whole.start, whole.stop)
        self.done = Intervals()
        self.last = whole is not None  # its end is known

    def piece_at(self, index: int) -> Piece | None:
        """Return the piece that holds an item."""
        if len(self.pieces) == 1:
            only = self.pieces[0]
            return only if only.start <= index < only.stop else None
        at = bisect_right(self.pieces, index, key=lambda piece: piece.start) - 1
        if at >= 0 and index < self.pieces[at].stop:
            return self.pieces[at]
        return None

    def digests_of(self, start: int, stop: int) -> bytes:
        """Return the digests of known items `[start, stop)` within one piece."""
        piece = self.piece_at(start)
        assert piece is not None, f"S1 call {self.call}[{start}]"
        return ids.digests_of(piece.digests, start - piece.start, stop - piece.start)

    def put(self, piece: Piece) -> int:
        """Add a piece, replacing what it covers; return the bytes it adds."""
        if not self.pieces or self.pieces[-1].stop <= piece.start:
            self.pieces.append(piece)
            return piece.size()
        before = self.size()
        kept: list[Piece] = []
        for old in self.pieces:
            kept += _cut(old, piece.start, piece.stop)
        kept.append(piece)
        kept.sort(key=lambda each: each.start)
        self.pieces = kept
        return self.size() - before

    def cut_off(self, stop: int) -> list[Piece]:
        """Remove all items from `stop` on; return the pieces that held them."""
        if not self.pieces or self.pieces[-1].stop <= stop:
            return []
        gone = [left for piece in self.pieces for left in _cut(piece, 0, stop)]
        self.pieces = [left for piece in self.pieces for left in _cut(piece, stop, piece.stop)]
        return [piece for piece in gone if piece.stop > stop]

    def cut_away(self, start: int, stop: int) -> None:
        """Remove items from the pieces that hold them."""
        self.pieces = [left for piece in self.pieces for left in _cut(piece, start, stop)]

    def size(self) -> int:
        """Return the bytes of arguments that it keeps in memory."""
        if len(self.pieces) == 1:
            return self.pieces[0].size()
        return sum(piece.size() for piece in self.pieces)


def _cut(piece: Piece, start: int, stop: int) -> list[Piece]:
    """Return what is left of a piece without `[start, stop)`."""
    if stop <= piece.start or piece.stop <= start:
        return [piece]
    left = []
    for low, high in ((piece.start, min(start, piece.stop)), (max(stop, piece.start), piece.stop)):
        if low < high:
            a, b = low - piece.start, high - piece.start
            left.append(
                Piece(
                    low,
                    high,
                    piece.fn,
                    ids.digests_of(piece.digests, a, b),
                    piece.record,
                    piece.offset + a,
                    None if piece.args is None else piece.args[a:b],
                )
            )
    return left
