"""What the broker knows of a parent and of its calls while they are not done."""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING

import msgspec

from resilient_scoop import ids
from resilient_scoop.core.facts.intervals import Intervals
from resilient_scoop.core.facts.sizes import Sizes

if TYPE_CHECKING:
    from resilient_scoop.core.broker.peers import Lease
    from resilient_scoop.core.facts.checkpoints import Kept
    from resilient_scoop.core.facts.progress import Words
    from resilient_scoop.wire.checkpoints import Trimmed
    from resilient_scoop.wire.messages import Attempt, Crashed, Part, Unfit
    from resilient_scoop.wire.tally import Work


class Piece(msgspec.Struct):
    """A run of a batch's items as it was sent: where its arguments are."""

    start: int
    stop: int
    fn: bytes
    digests: bytes
    record: int  # sequence number of the `Calls` record
    offset: int  # index of the first item's arguments in the record's `Args`
    args: list[bytes] | None = None  # in memory, or to be read back

    def size(self) -> int:
        """Return the bytes of arguments that it keeps in memory."""
        args = self.args
        if args is None:
            return 0
        if len(args) == 1:
            return len(args[0]) + 64
        return sum(map(len, args)) + 64 * len(args)


class Batch:
    """One call of a parent, while any of its items is not done."""

    __slots__ = (
        "asked", "call", "done", "last", "leases", "parent", "pieces", "queued", "ready", "resumed",
        "spared", "tried", "undone", "unfit",
    )  # fmt: skip

    def __init__(self, parent: Parent, call: int, whole: Piece | None = None) -> None:
        """Make a batch without items, or one that is this piece and ends with it."""
        self.parent = parent
        self.call = call
        self.pieces: list[Piece] = [] if whole is None else [whole]
        self.undone = Intervals() if whole is None else Intervals.run(whole.start, whole.stop)
        self.done = Intervals()
        self.last = whole is not None
        self.ready = Intervals()  # volatile: undone and not leased
        self.resumed: list[int] = []  # volatile: a heap of ready items that have a history
        self.queued = False  # volatile: has an entry in the queue
        self.spared: set[int] | None = None  # volatile: held back, all but these
        # Volatile: tries under `retries=` of items that were moved since, in the worker they were in.
        self.tried: dict[int, int] | None = None
        self.leases: list[Lease] = []  # volatile: who holds items of it
        # Volatile: the function that the parent asked for last; empty until its replay asks again.
        self.asked = b"" if whole is None else whole.fn
        self.unfit: Unfit | None = (
            None  # volatile: what a worker lacks for it, until it is asked for
        )

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
        assert piece is not None, f"S1 {self.parent.path}.{self.call}[{start}]"
        width = ids.DIGEST_BYTES
        return piece.digests[(start - piece.start) * width : (stop - piece.start) * width]

    def put(self, piece: Piece) -> int:
        """Lay a piece over what is there, cutting away what it covers; return the bytes it adds."""
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

    def cut_away(self, start: int, stop: int) -> None:
        """Take items out of the pieces that hold them."""
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
                    piece.digests[a * ids.DIGEST_BYTES : b * ids.DIGEST_BYTES],
                    piece.record,
                    piece.offset + a,
                    None if piece.args is None else piece.args[a:b],
                )
            )
    return left


class Parent:
    """A future that spawned others, while it is not done."""

    __slots__ = (
        "args_left", "batches", "blocks", "cancelled", "crashes", "depth", "dropped", "dropped_items",
        "finished", "index", "intents", "logged", "next_observation", "partial", "path", "prefix",
        "renewed", "saved", "sizes", "trimmed_by", "trims", "untold", "words", "work", "writer",
    )  # fmt: skip

    def __init__(self, path: str, prefix: bytes, words: Words) -> None:
        self.path = path
        self.prefix = prefix
        self.words = words  # of all parents
        self.depth = ids.depth(path)
        self.writer: Attempt | None = None  # whose record is the last in its log
        self.batches: dict[int, Batch] = {}
        self.args_left: dict[int, int] = {}  # record of `Args` -> its items that are not done
        self.finished = Intervals()
        self.sizes = Sizes()  # of finished calls: their items
        self.partial: dict[int, Intervals] = {}  # of those that ended early: the items done
        self.renewed: dict[int, dict[int, bytes]] = {}  # items once fresh: function and digest
        self.logged = False  # has outcomes or observations: a new attempt replays
        self.next_observation = 0
        self.index: list[tuple[int, int]] = []  # (call, sequence number), sparse, ascending
        self.crashes: dict[tuple[int, int], list[Crashed]] = {}
        self.intents: dict[int, Intervals] = {}  # call -> idempotent=False items once granted
        self.cancelled: dict[int, Intervals] = {}  # call -> items that ended so
        # Of checkpoints (`core.facts.checkpoints`):
        self.blocks: dict[tuple[str, int], list[Kept]] = {}  # generations, ascending
        self.saved = 0  # volatile: checkpoints taken in, in this epoch and before
        self.dropped = Intervals()  # calls of which nothing is kept
        self.dropped_items = 0  # how many items those had
        self.untold = Intervals()  # observations of which nothing is kept
        self.trimmed_by: list[tuple[str, int]] = []  # blocks whose checkpoints cover those
        self.trims: dict[int, Trimmed] = {}  # by sequence number
        self.work: dict[bytes, Work] = {}  # what its log's outcomes came to, by fingerprint

    def is_past(self, attempt: Attempt) -> bool:
        """Tell whether a later attempt than this has written: this one lacks what that was told."""
        last = self.writer
        return last is not None and (last.epoch, last.no) > (attempt.epoch, attempt.no)

    def size_of(self, call: int) -> int | None:
        """Return how many items a finished call has; None if it is not finished."""
        return self.sizes[call] if call in self.finished else None

    def begins(self, part: Part) -> bool:
        """Tell whether a part is the whole of a call that was never heard of: by far most are."""
        stops = self.finished.stops
        return (
            part.last
            and part.start == 0 < part.count
            and not part.fresh
            and not self.renewed
            and part.call not in self.batches
            and (not stops or part.call >= stops[-1])
        )

    def next_call(self) -> int:
        """Return the number above every call of it that is known."""
        done = self.finished.stops[-1] if self.finished else 0
        return max(done, max(self.batches, default=-1) + 1)

    def forget(self, call: int, low: int, high: int) -> None:
        """Items are done, or new ones stand in their place: what was noted of them is void."""
        if self.crashes:
            for key in [k for k in self.crashes if k[0] == call and low <= k[1] < high]:
                del self.crashes[key]
        if self.words.batches:
            self.words.sift(self, call, low, high)
        if not self.intents and not self.cancelled:
            return
        for noted in (self.intents, self.cancelled):
            spans = noted.get(call)
            if spans is not None:
                spans.discard(low, high)
                if not spans:
                    del noted[call]

    def record_before(self, call: int) -> int:
        """Return a sequence number at or below that of the call's first record."""
        at = bisect_right(self.index, (call, -1)) - 1
        return self.index[at][1] - 1 if at >= 0 else 0
