"""The one fold over LOG: applies a record to a state, and returns what changed.

The live ledger calls `apply` with received records, and logs the parts that counted; recovery calls
it with the logged ones. Both get the same state:

  FO1  What does not count changes nothing (S2), so a record may be applied before it is known to be new.
      A record is logged exactly if it was new, reduced to what counted.
  FO2  Records of one parent are applied in the order of their sequence numbers; records of different
      parents commute, so recovery may scan the table in key order.
  FO3  A record that a sweep has erased, and one that it has not reached yet, make no difference
      (`core.facts.checkpoints`, C3).
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import TYPE_CHECKING, NamedTuple, assert_never

import msgspec

from resilient_scoop import ids
from resilient_scoop.core.facts import checkpoints
from resilient_scoop.core.facts.batch import Batch, Piece
from resilient_scoop.core.facts.intervals import Intervals
from resilient_scoop.wire.broker_errors import is_cancelled
from resilient_scoop.wire.messages import (
    Abandoned,
    Calls,
    Checkpoint,
    Crashed,
    Intent,
    Logged,
    Observed,
    Outcome,
    Outcomes,
    Part,
    Progress,
    Trimmed,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from resilient_scoop.core.facts.generations import Generation
    from resilient_scoop.core.facts.parent import ParentFacts
    from resilient_scoop.core.facts.state import DurableState

Span = tuple[int, int]
_INDEX_STRIDE = 256
_END = 1 << 62


class PartChange(msgspec.Struct, frozen=True):
    """What one part of a `Calls` record changed."""

    batch: Batch
    fn: bytes  # function that the parent calls there
    new: Sequence[Span]  # items that must now run
    is_whole: bool = False  # all items of a new batch
    replaced: Sequence[Span] = ()  # undone items that have changed, or are beyond the new end
    begun: Sequence[Span] = ()  # parts of `replaced` in which `idempotent=False` items had begun
    lost: Sequence[Span] = ()  # done items that no longer count


class _Place(NamedTuple):
    """Where the arguments of a part are: in which record, from which item on, and a copy of them."""

    seq: int
    offset: int
    args: list[bytes] | None

    def piece(self, part: Part, low: int, high: int) -> Piece:
        """Return items `[low, high)` of the part as a piece."""
        a, b = low - part.start, high - part.start
        digests = ids.digests_of(part.digests, a, b)
        at = self.offset + a
        kept = None if self.args is None else self.args[at : self.offset + b]
        return Piece(low, high, part.fn, digests, self.seq, at, kept)


class Counted(msgspec.Struct, frozen=True):
    """The part of an outcome that counted."""

    outcome: Outcome
    batch: Batch
    spans: Sequence[Span]
    is_whole: bool = False  # it was the whole batch


class Change(msgspec.Struct):
    """What a record changed, for the keepers of volatile state."""

    is_new: bool = True
    parts: Sequence[PartChange] = ()
    counted: Sequence[Counted] = ()
    gone: Sequence[Generation] = ()  # checkpoints whose records are to be erased
    spent: list[bytes] = []  # keys of `Args` that are no longer needed (S5)


def apply(state: DurableState, record: Logged, seq: int, args: list[bytes] | None = None) -> Change:
    """Apply a record with its sequence number, which is assigned if it is new (FO1).

    `args` are those of a `Calls`, to be kept in memory.
    """
    change = Change()
    parent = state.parent(record.parent)
    match record:
        case Outcomes(items=items):
            spent = change.spent
            change.counted = [
                each
                for outcome in items
                if (each := _end(state, parent, outcome, spent)) is not None
            ]
            change.is_new = bool(change.counted)
        case Calls():
            _call(state, parent, record, seq, args, change)
        case Observed(observations=observations):
            following = observations[-1].no + 1
            change.is_new = following > parent.next_observation
            if change.is_new:
                parent.writer, parent.logged = record.attempt, True
                parent.next_observation = following
        case Checkpoint():
            _save(parent, record, seq, change)
        case Crashed():
            _die(parent, record)
        case Intent(call=call, start=start, count=count):
            spans = parent.intents.setdefault(call, Intervals())
            (spans.discard if record.void else spans.add)(start, start + count)
        case Abandoned():
            _abandon(state, parent, record, change.spent)
        case Trimmed():
            _trim(state, parent, record, seq, change.spent)
        case _:
            assert_never(record)
    return change


def apply_progress(state: DurableState, progress: Progress) -> bytes | None:
    """Record the progress of an item, or the script; return its record's key if it counts (K1)."""
    if not progress.parent:
        return state.progress.put(progress, b"", state.run)
    batch = state.batch(progress.parent, progress.call)
    piece = None if batch is None else batch.piece_at(progress.index)
    if batch is None or piece is None or progress.index not in batch.undone:
        return None
    mine = state.fingerprint(piece.fn) + batch.digests_of(progress.index, progress.index + 1)
    if mine != progress.fingerprint + progress.digest:
        return None
    return state.progress.put(progress, piece.fn, state.run)


def _call(
    state: DurableState,
    parent: ParentFacts,
    record: Calls,
    seq: int,
    args: list[bytes] | None,
    change: Change,
) -> None:
    offset, is_new = 0, False
    parts: list[PartChange] = []
    change.parts = parts
    for part in record.parts:
        if parent.begins(part):
            parts.append(_begin_whole(state, parent, part, seq, offset, args))
            is_new = True
        else:
            place = _Place(seq, offset, args)
            changed, says_more = _ask(state, parent, part, place, change.spent)
            is_new = is_new or says_more
            if changed is not None:
                parts.append(changed)
        offset += part.count
    change.is_new = is_new
    if is_new:
        parent.writer = record.attempt


def _begin_whole(
    state: DurableState,
    parent: ParentFacts,
    part: Part,
    seq: int,
    offset: int,
    args: list[bytes] | None,
) -> PartChange:
    """Do the same as `_ask`, for a part for which `ParentFacts.begins` holds: the most frequent case."""
    call, count = part.call, part.count
    kept = None if args is None else args[offset : offset + count]
    piece = Piece(0, count, part.fn, part.digests, seq, offset, kept)
    batch = parent.batches[call] = Batch(call, piece)
    if not parent.index or call >= parent.index[-1][0] + _INDEX_STRIDE:
        parent.index.append((call, seq))
    if kept is not None:
        state.args_bytes += piece.size()
    parent.args_left[seq] = parent.args_left.get(seq, 0) + count
    state.items_known += count
    if parent.has_notes or state.progress.batches:
        _forget(state, parent, call, 0, count)
    return PartChange(batch, part.fn, (), True)  # noqa: FBT003 - a struct is made faster by positions


def _open_batch(
    state: DurableState, parent: ParentFacts, part: Part, place: _Place
) -> Batch | None:
    """Open a batch that is not open; None if it has ended, and the part has no new items."""
    call, stop = part.call, part.start + part.count
    if parent.dropped:
        checkpoints.ask_again(parent, call)
    size, partial = parent.size_of(call), parent.partial.pop(call, None)
    is_within = size is not None and partial is None and stop <= size
    if is_within and not _renewed(state, parent, part):
        return None
    batch = parent.batches[call] = Batch(call)
    if size is not None:  # a changed script makes more calls, or repeats them
        parent.finished.discard(call, call + 1)
        parent.sizes.forget(call)
        batch.done = Intervals([(0, size)]) if partial is None else partial
        batch.last = True
    if not parent.index or call >= parent.index[-1][0] + _INDEX_STRIDE:
        parent.index.append((call, place.seq))
    return batch


def _ask(
    state: DurableState, parent: ParentFacts, part: Part, place: _Place, spent: list[bytes]
) -> tuple[PartChange | None, bool]:
    """Apply any part of a call (S1); return what it changes, and whether it is new."""
    call, stop = part.call, part.start + part.count
    batch = parent.batches.get(call)
    is_known = batch is not None or (call in parent.finished and call not in parent.dropped)
    if batch is None:
        batch = _open_batch(state, parent, part, place)
        if batch is None:
            return None, part.fresh
        is_end_known = True
    else:
        is_end_known = batch.last
    beyond = _cut_off(state, parent, batch, stop, spent) if part.last else ([], [])
    is_new = part.last and (not is_end_known or bool(beyond[0] or beyond[1]))
    batch.last = batch.last or part.last
    replaced, lost, spans = _new_spans(state, parent, batch, part)
    intents = parent.intents.get(call)
    begun = [run for span in replaced for run in intents.overlap(*span)] if intents else []
    for low, high in spans:
        state.args_bytes += batch.put(place.piece(part, low, high))
        parent.args_left[place.seq] = parent.args_left.get(place.seq, 0) + high - low
        batch.undone.add(low, high)
        state.items_known += high - low
        _forget(state, parent, call, low, high)
    _mark(state, parent, part, spans)
    if not spans:
        _finish(state, parent, batch, spent)
    changed = PartChange(
        batch, part.fn, spans,
        replaced=[*replaced, *beyond[0]], begun=begun, lost=[*beyond[1], *lost],
    )  # fmt: skip
    return changed, is_new or bool(spans) or not is_known or part.fresh


def _cut_off(
    state: DurableState, parent: ParentFacts, batch: Batch, stop: int, spent: list[bytes]
) -> tuple[list[Span], list[Span]]:
    """Drop items from `stop` on: an earlier attempt had more. Return the undone and the done ones."""
    found = batch.undone.overlap(stop, _END), batch.done.overlap(stop, _END)
    for spans, gone in zip((batch.undone, batch.done), found, strict=True):
        beyond = sum(high - low for low, high in gone)
        state.items_known -= beyond
        state.items_done -= beyond if spans is batch.done else 0
        if beyond:
            spans.discard(stop, _END)
            _forget(state, parent, batch.call, stop, _END)
    if found[0] or found[1]:
        for piece in batch.cut_off(stop):
            _spend(state, parent, piece, spent)
    return found


def _new_spans(
    state: DurableState, parent: ParentFacts, batch: Batch, part: Part
) -> tuple[list[Span], list[Span], list[Span]]:
    """Drop known items that differ from a part.

    Return the changed undone items, the done ones that no longer count, and all new items.
    """
    start, stop = part.start, part.start + part.count
    if not batch.pieces and not batch.done:
        return [], [], [(start, stop)] if start < stop else []
    replaced = state.differing(batch, part)
    renewed = _renewed(state, parent, part)
    stale = [*replaced, *((index, index + 1) for index in renewed if index in batch.done)]
    spans = Intervals(stale)
    known = Intervals([*batch.undone.overlap(start, stop), *batch.done.overlap(start, stop)])
    lost: list[Span] = []
    for low, high in stale:
        done = batch.done.overlap(low, high)
        state.items_known -= Intervals([*batch.undone.overlap(low, high), *done]).count()
        state.items_done -= sum(b - a for a, b in done)
        lost += done
        batch.done.discard(low, high)
    for low, high in known.gaps(start, stop):
        spans.add(low, high)
    return replaced, lost, list(spans)


def _renewed(state: DurableState, parent: ParentFacts, part: Part) -> list[int]:
    """Return which items of a fresh part were not called in this way before.

    The parent may ask again because it died before the answer to its call.
    """
    if not part.fresh:
        return []
    marks = parent.renewed.get(part.call, {})
    indexes = range(part.start, part.start + part.count)
    return [index for index in indexes if marks.get(index) != _mark_of(state, part, index)]


def _mark_of(state: DurableState, part: Part, index: int) -> bytes:
    at = index - part.start
    return state.fingerprint(part.fn) + ids.digests_of(part.digests, at, at + 1)


def _mark(state: DurableState, parent: ParentFacts, part: Part, spans: list[Span]) -> None:
    """Record the present form of items that were called again."""
    marks = parent.renewed.get(part.call)
    if part.fresh:
        marks = parent.renewed.setdefault(part.call, {})
        spans = [(part.start, part.start + part.count)]
    if marks is not None:
        for low, high in spans:
            for index in range(low, high):
                if part.fresh or index in marks:
                    marks[index] = _mark_of(state, part, index)


def _end(
    state: DurableState, parent: ParentFacts, outcome: Outcome, spent: list[bytes]
) -> Counted | None:
    """Apply an outcome; return what of it counted."""
    batch = parent.batches.get(outcome.call)
    if batch is None:
        parent.logged = parent.logged or outcome.call < 0  # of a fork, without a place
        return None
    if state.is_whole(batch, outcome):  # by far most are
        counted = Counted(outcome, batch, [(0, len(outcome.values))], True)  # noqa: FBT003 - a struct is made faster by positions
        _end_whole(state, parent, batch, failed=bool(outcome.failed), spent=spent)
    else:
        spans = state.wanted(batch, outcome)
        if not spans:
            return None
        counted = Counted(outcome, batch, spans)
        _end_items(state, parent, batch, spans, failed=bool(outcome.failed), spent=spent)
    state.tally.count(parent, outcome, counted.spans)
    if outcome.task is None and is_cancelled(outcome.values[0]):
        start = outcome.start
        parent.cancelled.setdefault(outcome.call, Intervals()).add(start, start + 1)
    return counted


def _end_whole(
    state: DurableState, parent: ParentFacts, batch: Batch, *, failed: bool, spent: list[bytes]
) -> None:
    """Do the same as `_end_items`, for an outcome for which `DurableState.is_whole` holds."""
    call, piece = batch.call, batch.pieces[0]
    count = piece.stop
    if failed:
        parent.args_left.pop(piece.record, None)
    parent.logged = True
    state.items_done += count
    _spend(state, parent, piece, spent)
    batch.undone, batch.done, batch.pieces = batch.done, batch.undone, []
    del parent.batches[call]
    if parent.has_notes or state.progress.batches:
        _forget(state, parent, call, 0, count)
    parent.finished.add(call, call + 1)
    if count != 1:
        parent.sizes[call] = count
    if parent.intents:
        parent.intents.pop(call, None)


def _end_items(
    state: DurableState,
    parent: ParentFacts,
    batch: Batch,
    spans: list[Span],
    *,
    failed: bool,
    spent: list[bytes],
) -> None:
    """Mark counted items done. `failed`: some of them failed; their arguments are kept."""
    parent.logged = True
    for low, high in spans:
        if failed:
            for piece in batch.pieces:
                if piece.start < high and low < piece.stop:
                    parent.args_left.pop(piece.record, None)
        batch.undone.discard(low, high)
        batch.done.add(low, high)
        state.items_done += high - low
        _forget(state, parent, batch.call, low, high)
    if batch.undone:
        _drop_done_pieces(state, parent, batch, spans, spent)
    else:
        _finish(state, parent, batch, spent)


def _spend(state: DurableState, parent: ParentFacts, piece: Piece, spent: list[bytes]) -> None:
    """Drop a piece that is done, and its record if that was the last (S5)."""
    state.args_bytes -= piece.size()
    left = parent.args_left.get(piece.record)
    if left is None:
        return
    left -= piece.stop - piece.start
    if left > 0:
        parent.args_left[piece.record] = left
    else:
        del parent.args_left[piece.record]
        spent.append(ids.record_key(parent.prefix, piece.record))


def _drop_done_pieces(
    state: DurableState, parent: ParentFacts, batch: Batch, spans: list[Span], spent: list[bytes]
) -> None:
    """Drop pieces that are completely done."""
    for low, high in spans:
        first = max(0, bisect_right(batch.pieces, low, key=lambda piece: piece.start) - 1)
        last = bisect_left(batch.pieces, high, key=lambda piece: piece.start)
        kept = []
        for piece in batch.pieces[first:last]:
            if batch.undone.overlap(piece.start, piece.stop):
                kept.append(piece)
            else:
                _spend(state, parent, piece, spent)
        batch.pieces[first:last] = kept


def _finish(state: DurableState, parent: ParentFacts, batch: Batch, spent: list[bytes]) -> None:
    """Drop a batch whose items are all done, once its end is known (S3)."""
    if batch.undone:
        return
    for piece in batch.pieces:
        _spend(state, parent, piece, spent)
    batch.pieces = []
    if not batch.last:
        return
    parent.batches.pop(batch.call, None)
    parent.finished.add(batch.call, batch.call + 1)
    parent.sizes[batch.call] = size = batch.done.count()
    if size and not batch.done.is_run(0, size):
        parent.partial[batch.call] = batch.done
    parent.intents.pop(batch.call, None)


def _forget(state: DurableState, parent: ParentFacts, call: int, low: int, high: int) -> None:
    """Drop records about items that are done, or replaced by new ones."""
    if state.progress.batches:
        state.progress.sift(parent.path, parent.batches.get(call), call, low, high)
    parent.forget(call, low, high)


def _die(parent: ParentFacts, crashed: Crashed) -> None:
    """Record a death for the present item, once per process."""
    deaths = parent.crashes.setdefault((crashed.call, crashed.index), [])
    deaths[:] = [each for each in deaths if each.digest == crashed.digest]
    if not any(each.incarnation == crashed.incarnation != b"" for each in deaths):
        deaths.append(crashed)


def _save(parent: ParentFacts, record: Checkpoint, seq: int, change: Change) -> None:
    """Add a checkpoint, if it is new."""
    change.is_new = checkpoints.is_new(parent, record)
    if change.is_new:
        change.gone = checkpoints.add(parent, record, seq)
        parent.writer, parent.logged = record.attempt, True
        parent.next_observation = max(parent.next_observation, record.observations)


def _abandon(
    state: DurableState, parent: ParentFacts, record: Abandoned, spent: list[bytes]
) -> None:
    """Forget undone items that are not wanted; the batch ends with what it has."""
    batch = parent.batches.get(record.call)
    if batch is None:
        return
    batch.last = True
    for start, stop in record.spans:
        for low, high in batch.undone.overlap(start, stop):
            state.items_known -= high - low
            batch.undone.discard(low, high)
            _forget(state, parent, record.call, low, high)
    if batch.undone:
        _drop_done_pieces(state, parent, batch, record.spans, spent)
    else:
        _finish(state, parent, batch, spent)


def _trim(
    state: DurableState, parent: ParentFacts, record: Trimmed, seq: int, spent: list[bytes]
) -> None:
    """Drop everything known about trimmed calls except that they are done (C3)."""
    dropped = Intervals(record.calls)
    for low, high in list(dropped):
        for gap in parent.dropped.gaps(low, high):
            _forget_calls(state, parent, *gap, spent)
        parent.finished.add(low, high)
    grown = record.items - parent.dropped_items
    state.items_known += grown
    state.items_done += grown
    parent.dropped, parent.dropped_items = dropped, record.items
    parent.untold = Intervals(record.observed)
    if parent.untold:
        parent.next_observation = max(parent.next_observation, parent.untold.stops[-1])
    parent.trims[seq] = record
    parent.trimmed_by = list(record.blocks)
    parent.logged = True
    checkpoints.thin_index(parent, dropped)


def _forget_calls(
    state: DurableState, parent: ParentFacts, low: int, high: int, spent: list[bytes]
) -> None:
    count = parent.items_within(low, high)
    state.items_known -= count
    state.items_done -= count
    parent.sizes.forget_span(low, high)
    for call in [each for each in parent.batches if low <= each < high]:
        batch = parent.batches.pop(call)  # of records that are half erased
        state.items_known -= batch.undone.count() + batch.done.count()
        state.items_done -= batch.done.count()
        for piece in batch.pieces:
            _spend(state, parent, piece, spent)
    for noted in (parent.renewed, parent.cancelled, parent.intents, parent.partial):
        for call in [each for each in noted if low <= each < high]:
            del noted[call]
    for where in [each for each in parent.crashes if low <= each[0] < high]:
        del parent.crashes[where]
