"""Recovers a `DurableState` from the records of the journal, for a new broker, `status` and `resume`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from resilient_scoop import ids
from resilient_scoop.core.facts.checkpoints import pending
from resilient_scoop.core.facts.fold import apply, apply_progress
from resilient_scoop.core.facts.intervals import Intervals
from resilient_scoop.core.facts.state import DurableState
from resilient_scoop.ids import SCRIPTS, item_path, parse_item
from resilient_scoop.wire.messages import Crashed, Define, Logged, Outcomes, Progress

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from resilient_scoop.core.facts.batch import Piece
    from resilient_scoop.core.facts.fold import Counted
    from resilient_scoop.wire.tally import Tally


def recover(
    run: bytes,
    defines: Iterable[Define],
    log: Iterable[tuple[bytes, Logged]],
    output_bytes: int,
    progress: Iterable[tuple[bytes, Progress]] = (),
    tally: Tally | None = None,
) -> DurableState:
    """Fold the records, given in key order, into the state that they were written from (FO2, FO3).

    Parents that are done, whose records a crash kept from being erased, are dropped again.
    Without a tally (a run of an earlier version) deaths are counted as the log has them.
    """
    state = DurableState(run, output_bytes=output_bytes)
    for define in defines:
        state.defines[define.fn] = define
    for key, record in log:
        seq = ids.seq_of(key)
        state.seq = max(state.seq, seq)
        change = apply(state, record, seq)
        if isinstance(record, Outcomes):
            _count_leftovers(state, record, change.counted)
        if tally is None and isinstance(record, Crashed) and record.reason != "timeout":
            state.tally.counts.crashes += 1
    if tally is not None:
        state.tally.begin(tally)
        state.items_known += tally.gone
        state.items_done += tally.gone
    _drop_ended(state)
    for key, message in progress:
        if apply_progress(state, message) is None:
            state.progress.stale.append(key)
    return state


def _count_leftovers(state: DurableState, record: Outcomes, counted: Sequence[Counted]) -> None:
    """Count a record's calls whose own records a sweep has already erased (N1)."""
    spans = {id(each.outcome): each.spans for each in counted}
    for outcome in record.items:
        stop = outcome.start + len(outcome.values)
        gaps = Intervals(spans.get(id(outcome), ())).gaps(outcome.start, stop)
        if gaps:
            state.tally.count(state.parent(record.parent), outcome, gaps)


def _drop_ended(state: DurableState) -> None:
    for path in list(state.parents):
        if path not in SCRIPTS and path in state.parents and not is_open(state, path):
            state.drop(path, counted=not state.tally.is_known)


def is_open(state: DurableState, path: str) -> bool:
    """Return whether the future at `path` is known and not done."""
    if path in SCRIPTS:
        return True
    place = parse_item(path)
    if place is None:
        return False
    above, call, index = place
    batch = state.batch(above, call)
    assert path == item_path(above, call, index)
    return batch is not None and index in batch.undone


def name_of(state: DurableState, fn: bytes) -> str:
    """Return a function's name, for display."""
    define = state.defines.get(fn)
    return "?" if define is None else (define.options.name or define.name).rpartition(":")[2]


def doubts(state: DurableState) -> list[tuple[str, str]]:
    """Return the items in doubt of a run that is not live: (path, function's name), in their order."""
    found = []
    for parent in state.parents.values():
        for call, intents in parent.intents.items():
            batch = parent.batches.get(call)
            for low, high in () if batch is None else list(batch.undone):
                for start, stop in intents.overlap(low, high):
                    for index in range(start, stop):
                        assert batch is not None, "S1"
                        piece = batch.piece_at(index)
                        name = "?" if piece is None else name_of(state, piece.fn)
                        found.append((parent.path, call, index, name))
    return [(item_path(path, call, index), name) for path, call, index, name in sorted(found)]


def forget_without_args(state: DurableState, has_args: Callable[[bytes], bool]) -> int:
    """Drop undone items whose arguments are missing in the journal, as after a repair.

    Their parents replay and call them again. Return how many there were.
    """
    known: dict[bytes, bool] = {}
    forgotten = 0
    for parent in state.parents.values():
        for batch in list(parent.batches.values()):
            for piece in list(batch.pieces):
                key = ids.record_key(parent.prefix, piece.record)
                begun = parent.intents.get(
                    batch.call, Intervals()
                )  # given up, never asked for (AB4)
                spans = [
                    gap
                    for run in batch.undone.overlap(piece.start, piece.stop)
                    for gap in begun.gaps(*run)
                ]
                if not spans:
                    continue
                if key not in known:
                    known[key] = has_args(key)
                if known[key]:
                    continue
                for index in [i for low, high in spans for i in range(low, high)]:
                    forgotten += 1
                    state.forget_item(batch, index)
    return forgotten


def forget_items(state: DurableState, record: int, indexes: set[int]) -> int:
    """Forget undone items whose arguments, at these places of an ARGS record, are lost.

    Their parents replay and make them again, like new ones. Return how many there were. Those that
    a checkpoint waits for are kept: they are not called again, and their arguments were synced.
    """
    return _forget(
        state,
        lambda piece, index: (
            piece.record == record and piece.offset + index - piece.start in indexes
        ),
    )


def forget_undone(state: DurableState) -> int:
    """Forget all undone items, like `forget_items`; return how many there were."""
    return _forget(state, lambda _piece, _index: True)


def _forget(state: DurableState, is_lost: Callable[[Piece, int], bool]) -> int:
    forgotten = 0
    for parent in state.parents.values():
        kept = pending(parent)
        for batch in [each for each in parent.batches.values() if each.call not in kept]:
            begun = parent.intents.get(batch.call, Intervals())  # given up, never asked for (AB4)
            for piece in list(batch.pieces):
                for index in range(piece.start, piece.stop):
                    if index in batch.undone and index not in begun and is_lost(piece, index):
                        forgotten += 1
                        state.forget_item(batch, index)
    return forgotten
