"""The broker's durable state: the result of folding LOG. Only `fold` changes it by records.

  S1  A batch's items are known, and each known item is undone or done, never both.
  S2  An outcome counts only where its fingerprint and digests are those of the batch as it now
      stands, and only for undone items; all others change nothing (NO-WRONG, ONE-COMMIT).
  S3  A batch whose items are all done and whose last part is known is dropped; its number stays in
      `finished`. A million finished items cost interval records, not objects. If a batch was given up and
      its done items are not the first ones, `partial` lists them.
  S4  `seq` is above every sequence number in the journal.
  S5  Arguments are kept in the journal until all items of their record are done, and for good if one
      of them failed: it may be tried again.

Erased parents (a parent that is done, and all below it) are removed from the state by `drop`, in
the turn that erases their records.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from resilient_scoop import ids
from resilient_scoop.core.facts.intervals import Intervals
from resilient_scoop.core.facts.parent import ParentFacts
from resilient_scoop.core.facts.progress import ProgressTable
from resilient_scoop.core.facts.tally import Totals

if TYPE_CHECKING:
    from resilient_scoop.core.facts.batch import Batch
    from resilient_scoop.wire.messages import Define, Outcome, Part


class DurableState(msgspec.Struct):
    """Everything that a new broker knows."""

    run: bytes
    seq: int = 0
    parents: dict[str, ParentFacts] = {}
    kids: dict[str, dict[str, None]] = {}  # children that are parents, by parent
    kid_items: dict[tuple[str, int], set[int]] = {}  # the same by batch
    defines: dict[bytes, Define] = {}
    output_bytes: int = 0
    inputs: int = 0  # reads of the script's standard input that are recorded
    items_known: int = 0
    items_done: int = 0
    tally: Totals = msgspec.field(default_factory=lambda: Totals({}))
    args_bytes: int = 0  # of the copies of arguments that are in memory (`Piece.args`)
    progress: ProgressTable = msgspec.field(
        default_factory=ProgressTable
    )  # progress of running items

    def __post_init__(self) -> None:
        self.tally = Totals(self.defines)

    def parent(self, path: str) -> ParentFacts:
        """Return the parent's record; make it on first use."""
        found = self.parents.get(path)
        if found is None:
            found = self.parents[path] = ParentFacts(path, ids.log_prefix(self.run, path))
            place = ids.parse_item(path)
            if place is not None:
                self.kids.setdefault(place[0], {})[path] = None
                self.kid_items.setdefault(place[:2], set()).add(place[2])
        return found

    def batch(self, path: str, call: int) -> Batch | None:
        """Return a call that is not done, if it is known."""
        parent = self.parents.get(path)
        return None if parent is None else parent.batches.get(call)

    def kids_within(self, path: str, call: int, low: int, high: int) -> list[int]:
        """Return which items `[low, high)` of a batch are parents, ascending."""
        kids = self.kid_items.get((path, call))
        if not kids:
            return []
        if high - low < len(kids):
            return [index for index in range(low, high) if index in kids]
        return sorted(index for index in kids if low <= index < high)

    def fingerprint(self, fn: bytes) -> bytes:
        """Return a function's fingerprint; for an unknown id, return the id itself."""
        define = self.defines.get(fn)
        return fn if define is None else define.fingerprint

    def differing(self, batch: Batch, part: Part) -> list[tuple[int, int]]:
        """Return the undone items of a part that differ from those of the batch."""
        found = Intervals()
        for low, high in batch.undone.overlap(part.start, part.start + part.count):
            if not self.same(batch, part, low, high):
                for index in range(low, high):
                    if not self.same(batch, part, index, index + 1):
                        found.add(index, index + 1)
        return list(found)

    def same(self, batch: Batch, part: Part, low: int, high: int) -> bool:
        """Return whether the known items `[low, high)` are those of the part."""
        for piece in batch.pieces:
            a, b = max(low, piece.start), min(high, piece.stop)
            if a >= b:
                continue
            if self.fingerprint(piece.fn) != self.fingerprint(part.fn):
                return False
            mine = ids.digests_of(piece.digests, a - piece.start, b - piece.start)
            if mine != ids.digests_of(part.digests, a - part.start, b - part.start):
                return False
        return True

    def wanted(self, batch: Batch, outcome: Outcome) -> list[tuple[int, int]]:
        """Return the runs of an outcome that count (S2)."""
        start, stop = outcome.start, outcome.start + len(outcome.values)
        spans = []
        for low, high in batch.undone.overlap(start, stop):
            at = low
            while at < high:
                piece = batch.piece_at(at)
                assert piece is not None, f"S1 call {outcome.call}[{at}]"
                end = min(high, piece.stop)
                theirs = ids.digests_of(outcome.digests, at - start, end - start)
                mine = ids.digests_of(piece.digests, at - piece.start, end - piece.start)
                if theirs == mine and self.fingerprint(piece.fn) == outcome.fingerprint:
                    spans.append((at, end))
                at = end
        return spans

    def is_whole(self, batch: Batch, outcome: Outcome) -> bool:
        """Return whether an outcome is that of a batch's every item, and counts (S2)."""
        if len(batch.pieces) != 1 or not batch.last or batch.done:
            return False
        piece = batch.pieces[0]
        return (
            outcome.start == piece.start == 0
            and len(outcome.values) == piece.stop
            and batch.undone.is_run(0, piece.stop)
            and outcome.digests == piece.digests
            and self.fingerprint(piece.fn) == outcome.fingerprint
        )

    def forget_item(self, batch: Batch, index: int) -> None:
        """Forget an undone item whose arguments are lost: its parent makes it again."""
        batch.undone.discard(index, index + 1)
        batch.cut_away(index, index + 1)
        batch.last = False  # the parent that makes the item again also sends the batch's end again
        self.items_known -= 1

    def drop(self, path: str, *, counted: bool = True) -> list[bytes]:
        """Forget a parent that is done and all below it; return their journal prefixes.

        Not `counted`: the tally has what their records say already, or that is void.
        """
        prefixes: list[bytes] = []
        heap = [path]
        place = ids.parse_item(path)
        if place is not None:
            self._disown(path, place)
        while heap:
            each = heap.pop()
            for kid in self.kids.pop(each, ()):
                heap.append(kid)
                below = ids.parse_item(kid)
                if below is not None:
                    self.kid_items.pop(below[:2], None)
            parent = self.parents.pop(each, None)
            if parent is not None:
                prefixes.append(parent.prefix)
                self._close(parent, counted=counted)
        return prefixes

    def _close(self, parent: ParentFacts, *, counted: bool) -> None:
        """Move the counts of a parent's erased records to the tally (N1)."""
        done = parent.done_items()
        for batch in parent.batches.values():
            self.items_known -= batch.undone.count()
            self.args_bytes -= batch.size()
        if counted:
            self.tally.erase(self.tally.by_title(parent), done)
        else:
            self.items_known -= done
            self.items_done -= done

    def _disown(self, path: str, place: tuple[str, int, int]) -> None:
        siblings = self.kids.get(place[0])
        if siblings is not None:
            siblings.pop(path, None)
            if not siblings:
                del self.kids[place[0]]
        indexes = self.kid_items.get(place[:2])
        if indexes is not None:
            indexes.discard(place[2])
            if not indexes:
                del self.kid_items[place[:2]]
