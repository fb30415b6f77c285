"""The broker's durable state: a fold over the journal's LOG, the same live and in recovery.

  S1  A batch's items are known, and each known item is undone or done, never both.
  S2  An outcome counts only where its fingerprint and digests are those of the batch as it now
      stands, and only for undone items; all others change nothing (NO-WRONG, ONE-COMMIT).
  S3  A batch whose items are all done and whose last part is known is dropped; its number stays in
      `finished`. A million finished items cost interval records, not objects. Of a batch that was
      given up, `partial` says which items were done, if these are not the first ones.
  S4  `seq` is above every sequence number in the journal.
  S5  Arguments are kept in the journal until all items of their record are done, and for good if one
      of them failed: it may be tried again.

Records of one parent are applied in the order of their sequence numbers; records of different
parents commute, so recovery may scan the table in key order.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import TYPE_CHECKING

import msgspec

from resilient_scoop import ids
from resilient_scoop.core.facts.batch import Batch, Parent, Piece
from resilient_scoop.core.facts.checkpoints import ask_again
from resilient_scoop.core.facts.intervals import Intervals
from resilient_scoop.core.facts.progress import Words
from resilient_scoop.core.facts.reused import Reused
from resilient_scoop.core.facts.tally import Totals, close

if TYPE_CHECKING:
    from resilient_scoop.wire.messages import (
        Abandoned,
        Crashed,
        Define,
        Intent,
        Observed,
        Outcome,
        Part,
    )

__all__ = ["Batch", "Parent", "Piece", "State"]

_INDEX_STRIDE = 256


class State(msgspec.Struct):
    """All that a new broker knows."""

    run: bytes
    seq: int = 0
    parents: dict[str, Parent] = {}
    kids: dict[str, dict[str, None]] = {}  # parents below a parent
    kid_items: dict[tuple[str, int], set[int]] = {}  # the same by batch
    defines: dict[bytes, Define] = {}
    output_bytes: int = 0
    inputs: int = 0  # reads of the script's standard input that are recorded
    items_known: int = 0
    items_done: int = 0
    reused: Reused = msgspec.field(default_factory=Reused)
    tally: Totals = msgspec.field(default_factory=Totals)
    args_bytes: int = 0  # of arguments kept in memory
    words: Words = msgspec.field(default_factory=Words)  # what running items said of themselves
    spent: list[bytes] = []  # keys of arguments that nobody needs now

    def parent(self, path: str) -> Parent:
        """Return the parent's record, made on first sight."""
        found = self.parents.get(path)
        if found is None:
            found = Parent(path, ids.log_prefix(self.run, path), self.words)
            self.parents[path] = found
            place = ids.parse_item(path)
            if place is not None:
                self.kids.setdefault(place[0], {})[path] = None
                self.kid_items.setdefault(place[:2], set()).add(place[2])
        return found

    def apply_part(
        self, parent: Parent, part: Part, record: int, offset: int, args: list[bytes] | None
    ) -> list[tuple[Batch, int, int]]:
        """Take in a part; return the runs of items that are new to do (S1)."""
        call, start, stop = part.call, part.start, part.start + part.count
        batch = parent.batches.get(call)
        if batch is None:
            if parent.dropped:
                ask_again(parent, call)
            size, partial = parent.size_of(call), parent.partial.pop(call, None)
            if (
                size is not None
                and partial is None
                and stop <= size
                and not self._renewed(parent, part)
            ):
                return []
            batch = parent.batches[call] = Batch(parent, call)
            if size is not None:  # a script that was changed asks for more, or again
                parent.finished.discard(call, call + 1)
                parent.sizes.forget(call)
                batch.done = Intervals([(0, size)]) if partial is None else partial
                batch.last = True
            if not parent.index or call >= parent.index[-1][0] + _INDEX_STRIDE:
                parent.index.append((call, record))
        if part.last:
            batch.last = True
            self._cut_off(batch, stop)
        spans = self._new_spans(batch, part, start, stop)
        for low, high in spans:
            a, b = low - start, high - start
            digests = part.digests[a * ids.DIGEST_BYTES : b * ids.DIGEST_BYTES]
            kept = None if args is None else args[offset + a : offset + b]
            piece = Piece(low, high, part.fn, digests, record, offset + a, kept)
            self.args_bytes += batch.put(piece)
            parent.args_left[record] = parent.args_left.get(record, 0) + high - low
            batch.undone.add(low, high)
            self.items_known += high - low
            parent.forget(call, low, high)
        self._mark(parent, part, spans)
        if not spans:
            self._finish(batch)
        return [(batch, low, high) for low, high in spans]

    def begin_whole(
        self, parent: Parent, part: Part, record: int, offset: int, args: list[bytes] | None
    ) -> Batch:
        """Do what `apply_part` does, for a part of which `Parent.begins` holds."""
        call, count = part.call, part.count
        kept = None if args is None else args[offset : offset + count]
        piece = Piece(0, count, part.fn, part.digests, record, offset, kept)
        batch = parent.batches[call] = Batch(parent, call, piece)
        if not parent.index or call >= parent.index[-1][0] + _INDEX_STRIDE:
            parent.index.append((call, record))
        if kept is not None:
            self.args_bytes += piece.size()
        parent.args_left[record] = parent.args_left.get(record, 0) + count
        self.items_known += count
        parent.forget(call, 0, count)
        return batch

    def _cut_off(self, batch: Batch, stop: int) -> None:
        """Forget items from `stop` on: an earlier attempt of the parent had more of them."""
        for spans in (batch.undone, batch.done):
            beyond = sum(high - low for low, high in spans.overlap(stop, 1 << 62))
            self.items_known -= beyond
            self.items_done -= beyond if spans is batch.done else 0
            if beyond:
                self.reused.lose(batch, stop, 1 << 62)
                spans.discard(stop, 1 << 62)
                batch.parent.forget(batch.call, stop, 1 << 62)

    def _new_spans(self, batch: Batch, part: Part, start: int, stop: int) -> list[tuple[int, int]]:
        """Return what of a part is not known as it is, forgetting what is known otherwise."""
        if not batch.pieces and not batch.done:
            return [(start, stop)] if start < stop else []
        stale = self.differing(batch, part)
        renewed = self._renewed(batch.parent, part)
        stale += [(index, index + 1) for index in renewed if index in batch.done]
        spans = Intervals(stale)
        known = Intervals([*batch.undone.overlap(start, stop), *batch.done.overlap(start, stop)])
        for low, high in stale:
            overlap = Intervals([*batch.undone.overlap(low, high), *batch.done.overlap(low, high)])
            self.items_known -= overlap.count()
            self.items_done -= sum(b - a for a, b in batch.done.overlap(low, high))
            self.reused.lose(batch, low, high)
            batch.done.discard(low, high)
        for low, high in known.gaps(start, stop):
            spans.add(low, high)
        return list(spans)

    def differing(self, batch: Batch, part: Part) -> list[tuple[int, int]]:
        """Return the undone items of a part that are others than those of the batch."""
        found = Intervals()
        for low, high in batch.undone.overlap(part.start, part.start + part.count):
            if not self.same(batch, part, low, high):
                for index in range(low, high):
                    if not self.same(batch, part, index, index + 1):
                        found.add(index, index + 1)
        return list(found)

    def _renewed(self, parent: Parent, part: Part) -> list[int]:
        """Return which items of a fresh part were not asked for so before.

        The parent may ask again because it did not live to see what came of its asking.
        """
        if not part.fresh:
            return []
        marks = parent.renewed.get(part.call, {})
        indexes = range(part.start, part.start + part.count)
        return [index for index in indexes if marks.get(index) != self._mark_of(part, index)]

    def _mark_of(self, part: Part, index: int) -> bytes:
        at = (index - part.start) * ids.DIGEST_BYTES
        return self.fingerprint(part.fn) + part.digests[at : at + ids.DIGEST_BYTES]

    def _mark(self, parent: Parent, part: Part, spans: list[tuple[int, int]]) -> None:
        """Note what items that were ever asked for anew are now."""
        marks = parent.renewed.get(part.call)
        if part.fresh:
            marks = parent.renewed.setdefault(part.call, {})
            spans = [(part.start, part.start + part.count)]
        if marks is not None:
            for low, high in spans:
                for index in range(low, high):
                    if part.fresh or index in marks:
                        marks[index] = self._mark_of(part, index)

    def same(self, batch: Batch, part: Part, low: int, high: int) -> bool:
        """Tell whether the known items `[low, high)` are those of the part."""
        width = ids.DIGEST_BYTES
        for piece in batch.pieces:
            a, b = max(low, piece.start), min(high, piece.stop)
            if a >= b:
                continue
            if self.fingerprint(piece.fn) != self.fingerprint(part.fn):
                return False
            mine = piece.digests[(a - piece.start) * width : (b - piece.start) * width]
            if mine != part.digests[(a - part.start) * width : (b - part.start) * width]:
                return False
        return True

    def kids_within(self, path: str, call: int, low: int, high: int) -> list[int]:
        """Return which items `[low, high)` of a batch are parents, ascending."""
        kids = self.kid_items.get((path, call))
        if not kids:
            return []
        if high - low < len(kids):
            return [index for index in range(low, high) if index in kids]
        return sorted(index for index in kids if low <= index < high)

    def fingerprint(self, fn: bytes) -> bytes:
        """Return a function's fingerprint; an unknown id stands for itself."""
        define = self.defines.get(fn)
        return fn if define is None else define.fingerprint

    def wanted(self, parent: Parent, outcome: Outcome) -> list[tuple[int, int]]:
        """Return the runs of an outcome that count (S2)."""
        batch = parent.batches.get(outcome.call)
        if batch is None:
            return []
        start, stop = outcome.start, outcome.start + len(outcome.values)
        width = ids.DIGEST_BYTES
        spans = []
        for low, high in batch.undone.overlap(start, stop):
            at = low
            while at < high:
                piece = batch.piece_at(at)
                assert piece is not None, f"S1 {parent.path}.{outcome.call}[{at}]"
                end = min(high, piece.stop)
                theirs = outcome.digests[(at - start) * width : (end - start) * width]
                mine = piece.digests[(at - piece.start) * width : (end - piece.start) * width]
                if theirs == mine and self.fingerprint(piece.fn) == outcome.fingerprint:
                    spans.append((at, end))
                at = end
        return spans

    def is_whole(self, batch: Batch, outcome: Outcome) -> bool:
        """Tell whether an outcome is that of a batch's every item, and counts (S2)."""
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

    def end_whole(self, batch: Batch, *, failed: bool) -> None:
        """Do what `apply_done` does, for an outcome of which `is_whole` holds."""
        parent, call, count = batch.parent, batch.call, batch.pieces[0].stop
        if failed:
            parent.args_left.pop(batch.pieces[0].record, None)
        parent.logged = True
        self.items_done += count
        self.spend(parent, batch.pieces[0])
        batch.undone, batch.done, batch.pieces = batch.done, batch.undone, []
        del parent.batches[call]
        parent.forget(call, 0, count)
        parent.finished.add(call, call + 1)
        if count != 1:
            parent.sizes[call] = count
        if parent.intents:
            parent.intents.pop(call, None)

    def spend(self, parent: Parent, piece: Piece) -> None:
        """Let go of a piece that is done, and of its record where that was the last (S5)."""
        self.args_bytes -= piece.size()
        left = parent.args_left.get(piece.record)
        if left is None:
            return
        left -= piece.stop - piece.start
        if left > 0:
            parent.args_left[piece.record] = left
        else:
            del parent.args_left[piece.record]
            self.spent.append(parent.prefix + piece.record.to_bytes(8, "big"))

    def apply_done(
        self, parent: Parent, call: int, spans: list[tuple[int, int]], *, failed: bool = False
    ) -> bool:
        """Mark items done that `wanted` returned; return whether the batch is finished.

        `failed`: some of them are; what they were called with is kept.
        """
        batch = parent.batches[call]
        parent.logged = True
        for low, high in spans:
            if failed:
                for piece in batch.pieces:
                    if piece.start < high and low < piece.stop:
                        parent.args_left.pop(piece.record, None)
            batch.undone.discard(low, high)
            if batch.ready:
                batch.ready.discard(low, high)
            batch.done.add(low, high)
            self.items_done += high - low
            parent.forget(call, low, high)
        if batch.undone:
            self._trim(batch, spans)
            return False
        return self._finish(batch)

    def _trim(self, batch: Batch, spans: list[tuple[int, int]]) -> None:
        """Let go of pieces that are wholly done."""
        for low, high in spans:
            first = max(0, bisect_right(batch.pieces, low, key=lambda piece: piece.start) - 1)
            last = bisect_left(batch.pieces, high, key=lambda piece: piece.start)
            kept = []
            for piece in batch.pieces[first:last]:
                if batch.undone.overlap(piece.start, piece.stop):
                    kept.append(piece)
                else:
                    self.spend(batch.parent, piece)
            batch.pieces[first:last] = kept

    def _finish(self, batch: Batch) -> bool:
        if batch.undone:
            return False
        for piece in batch.pieces:
            self.spend(batch.parent, piece)
        batch.pieces = []
        if not batch.last:
            return False
        parent = batch.parent
        parent.batches.pop(batch.call, None)
        parent.finished.add(batch.call, batch.call + 1)
        parent.sizes[batch.call] = size = batch.done.count()
        if size and not batch.done.is_run(0, size):
            parent.partial[batch.call] = batch.done
        parent.intents.pop(batch.call, None)
        return True

    def forget_item(self, batch: Batch, index: int) -> None:
        """Forget an undone item whose arguments are lost: its parent asks for it again."""
        batch.undone.discard(index, index + 1)
        batch.cut_away(index, index + 1)
        batch.last = False  # whoever asks for the item again tells the batch's end again
        self.items_known -= 1

    def apply_cancelled(self, parent: Parent, call: int, index: int) -> None:
        """Note that a done item was cancelled: the question may be asked again."""
        parent.cancelled.setdefault(call, Intervals()).add(index, index + 1)

    def apply_abandoned(self, parent: Parent, record: Abandoned) -> None:
        """Forget undone items that nobody wants; the batch ends with what it has."""
        batch = parent.batches.get(record.call)
        if batch is None:
            return
        batch.last = True
        for start, stop in record.spans:
            for low, high in batch.undone.overlap(start, stop):
                self.items_known -= high - low
                batch.undone.discard(low, high)
                parent.forget(record.call, low, high)
        if batch.undone:
            self._trim(batch, record.spans)
        else:
            self._finish(batch)

    def apply_observed(self, parent: Parent, observed: Observed) -> None:
        """Count a parent's observations."""
        parent.logged = True
        last = observed.observations[-1].no + 1
        parent.next_observation = max(parent.next_observation, last)

    def apply_crashed(self, parent: Parent, crashed: Crashed) -> int:
        """Note a death; return how often this item, as it now stands, was on the CPU at one."""
        deaths = parent.crashes.setdefault((crashed.call, crashed.index), [])
        deaths[:] = [each for each in deaths if each.digest == crashed.digest]
        if any(each.incarnation == crashed.incarnation != b"" for each in deaths):
            return len(deaths)
        deaths.append(crashed)
        return len(deaths)

    def apply_intent(self, parent: Parent, intent: Intent) -> None:
        """Note that items begin that must never begin twice, or that they have not after all."""
        spans = parent.intents.setdefault(intent.call, Intervals())
        (spans.discard if intent.void else spans.add)(intent.start, intent.start + intent.count)

    def drop(self, path: str, *, counted: bool = True) -> list[bytes]:
        """Forget a parent that is done and all below it; return their journal prefixes."""
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
                close(self, parent, counted=counted)
        return prefixes

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
