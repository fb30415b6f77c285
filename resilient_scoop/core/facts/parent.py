"""The durable facts of an unfinished future that made calls."""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING

from resilient_scoop import ids
from resilient_scoop.core.facts.intervals import Intervals
from resilient_scoop.core.facts.sizes import Sizes

if TYPE_CHECKING:
    from resilient_scoop.core.facts.batch import Batch
    from resilient_scoop.core.facts.generations import Generation
    from resilient_scoop.wire.checkpoints import Trimmed
    from resilient_scoop.wire.messages import Attempt, Crashed, Part
    from resilient_scoop.wire.tally import FunctionWork


class ParentFacts:
    """A future that spawned others, while it is not done."""

    __slots__ = (
        "args_left", "batches", "blocks", "cancelled", "crashes", "depth", "dropped", "dropped_items",
        "finished", "index", "intents", "logged", "next_observation", "partial", "path", "prefix",
        "renewed", "sizes", "trimmed_by", "trims", "untold", "work", "writer",
    )  # fmt: skip

    def __init__(self, path: str, prefix: bytes) -> None:
        self.path = path
        self.prefix = prefix
        self.depth = ids.depth(path)
        self.writer: Attempt | None = None  # writer of the last record in its log
        self.batches: dict[int, Batch] = {}
        self.args_left: dict[int, int] = {}  # record of `Args` -> its items that are not done
        self.finished = Intervals()
        self.sizes = Sizes()  # of finished calls: their items
        self.partial: dict[int, Intervals] = {}  # of calls that ended early: the finished items
        self.renewed: dict[int, dict[int, bytes]] = {}  # items once fresh: function and digest
        self.logged = False  # has outcomes or observations: a new attempt replays
        self.next_observation = 0
        self.index: list[tuple[int, int]] = []  # (call, sequence number), sparse, ascending
        self.crashes: dict[tuple[int, int], list[Crashed]] = {}
        self.intents: dict[int, Intervals] = {}  # call -> idempotent=False items once granted
        self.cancelled: dict[int, Intervals] = {}  # call -> items that ended as cancelled
        # Of checkpoints (`core.facts.checkpoints`):
        self.blocks: dict[tuple[str, int], list[Generation]] = {}  # generations, ascending
        self.dropped = Intervals()  # calls of which nothing is kept
        self.dropped_items = 0  # how many items those had
        self.untold = Intervals()  # observations of which nothing is kept
        self.trimmed_by: list[tuple[str, int]] = []  # blocks whose checkpoints cover those
        self.trims: dict[int, Trimmed] = {}  # by sequence number
        self.work: dict[
            bytes, FunctionWork
        ] = {}  # totals of the outcomes in its log, by fingerprint

    def is_past(self, attempt: Attempt) -> bool:
        """Return whether a later attempt has written: this one lacks the answers of that one."""
        last = self.writer
        return last is not None and (last.epoch, last.no) > (attempt.epoch, attempt.no)

    def size_of(self, call: int) -> int | None:
        """Return how many items a finished call has; None if it is not finished."""
        return self.sizes[call] if call in self.finished else None

    def begins(self, part: Part) -> bool:
        """Return whether a part is the whole of a call that is new; most parts are."""
        stops = self.finished.stops
        return (
            part.last
            and part.start == 0 < part.count
            and not part.fresh
            and not self.renewed
            and part.call not in self.batches
            and (not stops or part.call >= stops[-1] or self._is_new(part.call))
        )

    def _is_new(self, call: int) -> bool:
        """Return whether a call below finished ones was unknown: numbers by content have no order."""
        return call not in self.finished and not self.dropped and not self.partial

    def next_call(self) -> int:
        """Return the number above every call of it that is known."""
        done = self.finished.stops[-1] if self.finished else 0
        return max(done, max(self.batches, default=-1) + 1)

    @property
    def has_notes(self) -> bool:
        """Whether there are records about single items (`forget`)."""
        return bool(self.crashes or self.intents or self.cancelled)

    def forget(self, call: int, low: int, high: int) -> None:
        """Drop records about items that are done, or replaced by new ones."""
        if self.crashes:
            for key in [k for k in self.crashes if k[0] == call and low <= k[1] < high]:
                del self.crashes[key]
        if not self.intents and not self.cancelled:
            return
        for noted in (self.intents, self.cancelled):
            spans = noted.get(call)
            if spans is not None:
                spans.discard(low, high)
                if not spans:
                    del noted[call]

    def items_within(self, low: int, high: int) -> int:
        """Return how many items the finished ones of calls `[low, high)` have."""
        more = sum((b - a) * (size - 1) for a, b, size in self.sizes.runs(low, high))
        return more + sum(b - a for a, b in self.finished.overlap(low, high))

    def done_items(self) -> int:
        """Return how many items of its calls are done, those that checkpoints cover included."""
        held = self.dropped.gaps(0, self.next_call())
        count = self.dropped_items + sum(self.items_within(*run) for run in held)
        return count + sum(batch.done.count() for batch in self.batches.values())

    def record_before(self, call: int) -> int:
        """Return a sequence number at or below that of the call's first record."""
        at = bisect_right(self.index, (call, -1)) - 1
        return self.index[at][1] - 1 if at >= 0 else 0
