"""Remove records of a repaired journal that cannot be used because records on which they depend are lost.

Undamaged records may still be inconsistent. In this order:

1. A result whose file is lost or damaged is computed again; a constant is set again. A checkpoint whose
   file is lost or damaged cannot be continued from.
2. A checkpoint that waits for a call of which the journal has neither the outcome nor the arguments
   would wait forever.
3. Trimmed calls (`core.facts.checkpoints`) must be covered by a checkpoint in the journal. Otherwise they
   are called again, and the parent continues from the first missing call: later checkpoints depend on
   calls whose results may differ now, and are removed too.
4. After a gap in a parent's observations, in the script's input or in its output, the rest cannot be
   used. But what stands before a checkpoint is not written again: a gap in that output is filled.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec

from resilient_scoop import ids
from resilient_scoop.core.events import Change, Erase, Put, Table
from resilient_scoop.core.facts.intervals import Intervals
from resilient_scoop.core.facts.outcomes import parts_of
from resilient_scoop.core.facts.recovery import recover
from resilient_scoop.core.facts.visitor import LogVisitor
from resilient_scoop.counts import counted
from resilient_scoop.journal import result_files
from resilient_scoop.journal.blobs import BlobError, BlobStore, unpack_ref
from resilient_scoop.journal.state_store import FOLDER as STATES
from resilient_scoop.journal.streams import decoded, drop_input_after_gap, drop_output_after_gap
from resilient_scoop.wire.messages import (
    Checkpoint,
    Define,
    Logged,
    Observed,
    Outcome,
    Outcomes,
    Trimmed,
    decode_logged,
    decode_up,
    encode,
)
from resilient_scoop.wire.payload_tags import FILE

if TYPE_CHECKING:
    from resilient_scoop.core.facts.batch import Batch
    from resilient_scoop.core.facts.parent import ParentFacts
    from resilient_scoop.journal.journal import Journal

Block = tuple[str, int]


def fit(journal: Journal) -> list[str]:
    """Remove records from a journal that cannot be used; return which they were."""
    lost, changes = _without_files(journal)
    journal.commit(changes)
    parents = _parents(journal, BlobStore(journal.directory.parent / STATES))
    defines = list(_defines(journal))
    state = recover(journal.run, defines, _log(journal), 0)
    for parent in parents.values():
        known = state.parents.get(parent.path)
        if known is not None:
            parent.drop_waits(known, journal)
        parent.drop_uncovered()
        lost += [*parent.dropped(), *parent.drop_after_gaps()]
    root = parents.get(ids.ROOT)
    unwritten, more = drop_output_after_gap(journal, 0 if root is None else root.output_bytes())
    unread, erased = drop_input_after_gap(journal)
    changes = [change for parent in parents.values() for change in parent.changes]
    journal.commit([*changes, *more, *erased])
    state = recover(journal.run, defines, _log(journal), 0)
    once = sorted(
        {each.options.name or each.name for each in defines if not each.options.idempotent}
    )
    for parent in parents.values():
        lost += parent.asked_again(state.parents.get(parent.path), once)
    return lost + unwritten + unread


def _without_files(journal: Journal) -> tuple[list[str], list[Change]]:
    """Remove records that name a lost or damaged file."""
    lost: list[str] = []
    changes: list[Change] = []
    for table in (Table.CONST, Table.HISTORY):
        for key, raw in journal.scan(table):
            for text in result_files.problems(journal.files, raw, contents=True):
                what = (
                    f"constant {key.decode(errors='replace')!r}"
                    if table is Table.CONST
                    else "a record"
                )
                lost.append(f"table {table.name.lower()}, {what}: {text}")
                changes.append(Erase(table, key))
                break
    for key, raw in journal.scan(Table.LOG):
        why = next(result_files.problems(journal.files, raw, contents=True), "")
        if not why:
            continue
        changes.append(Erase(Table.LOG, key))
        record = decoded(decode_logged, raw)
        if not isinstance(record, Outcomes):
            lost.append(f"table log, key {key.hex()}: {why}")
            continue
        kept, gone = _with_files(journal, record)
        lost += [f"the result of {path}: {text}" for path, text in gone]
        if kept:
            changes.append(Put(Table.LOG, key, encode(Outcomes(record.parent, kept))))
    return lost, changes


def _state_problem(states: BlobStore, record: Checkpoint) -> str:
    if record.payload[:1] != FILE:
        return ""
    try:
        states.read(unpack_ref(record.payload[1:]))
    except (BlobError, ValueError) as error:
        return str(error)
    return ""


def _with_files(journal: Journal, record: Outcomes) -> tuple[list[Outcome], list[tuple[str, str]]]:
    """Return the outcomes with intact files, and the items without, with the reasons."""
    kept: list[Outcome] = []
    gone: list[tuple[str, str]] = []
    for item in record.items:
        spans = Intervals([(item.start, item.start + len(item.values))])
        for at, value in enumerate(item.values):
            why = next(result_files.problems(journal.files, value, contents=True), "")
            if why:
                index = item.start + at
                spans.discard(index, index + 1)
                gone.append((ids.item_path(record.parent, item.call, index), why))
        kept += parts_of(item, list(spans))
    return kept, gone


@dataclass(slots=True)
class _Parent(LogVisitor):
    """The checkpoints and observations of a parent in the log."""

    path: str
    states: BlobStore
    key: bytes = b""  # of the record that is taken in
    checkpoints: list[tuple[bytes, Checkpoint]] = field(default_factory=list)  # without states
    trims: list[tuple[bytes, Trimmed]] = field(default_factory=list)
    observations: list[tuple[bytes, Observed]] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)
    gone: list[tuple[Checkpoint, str]] = field(default_factory=list)  # dropped ones, with reasons
    untrimmed: Intervals = field(default_factory=Intervals)  # batches that are no longer trimmed
    untrimmed_items: int = 0  # items that they had

    def take(self, key: bytes, record: Logged) -> None:
        """Add a record."""
        self.key = key
        self.visit(record)

    def saved(self, record: Checkpoint) -> None:
        """Remember a checkpoint, unless its state is lost."""
        bare = msgspec.structs.replace(record, payload=b"")
        self.checkpoints.append((self.key, bare))
        if why := _state_problem(self.states, record):
            self._drop(bare, why)

    def trimmed(self, record: Trimmed) -> None:
        """Remember what was trimmed."""
        self.trims.append((self.key, record))

    def observed(self, record: Observed) -> None:
        """Remember an answer that the parent got."""
        self.observations.append((self.key, record))

    def newest(self) -> dict[Block, Checkpoint]:
        """Return the newest generation of each block, from which the parent continues."""
        ordered = sorted((record for _, record in self.checkpoints), key=lambda each: each.gen)
        return {(each.name, each.opening): each for each in ordered}

    def output_bytes(self) -> int:
        """Return how much of the script's output will not be written again."""
        return max((each.output_bytes for each in self.newest().values()), default=0)

    def dropped(self) -> list[str]:
        """Return which checkpoints were removed, why, and from where their blocks continue."""
        there, notes = self.newest(), []
        for record, why in self.gone:
            last = there.get((record.name, record.opening))
            so = (
                "its block starts from the beginning"
                if last is None
                else f"checkpoint {last.gen} is used"
            )
            what = f"checkpoint {record.gen} of block {record.name!r} of {self.path}"
            notes.append(f"{what}: {why}; {so}")
        return notes

    def drop_waits(self, known: ParentFacts, journal: Journal) -> None:
        """Remove checkpoints that would wait forever."""
        for _, record in list(self.checkpoints):
            for call in record.pending:
                if not _can_end(known, call, journal):
                    where = ids.batch_path(self.path, call)
                    self._drop(record, f"it waits for {where}, which the journal lacks")
                    break

    def drop_uncovered(self) -> None:
        """Restore trimmed batches that no checkpoint covers any more, to be called again."""
        if not self.trims:
            return
        while True:
            calls, observed = self._uncovered(self.trims[-1][1])
            rests = [
                record for _, record in self.checkpoints if _is_after_gap(record, calls, observed)
            ]
            if not rests:
                break
            for record in rests:
                self._drop(record, "it depends on results that are computed again")
        before = self.trims[-1][1]
        for at, (key, trimmed) in enumerate(self.trims):
            self.trims[at] = key, self._cut(trimmed)
            if self.trims[at][1] != trimmed:
                left = self.trims[at][1]
                empty = not left.calls and not left.observed
                self.changes.append(
                    Erase(Table.LOG, key) if empty else Put(Table.LOG, key, encode(left))
                )
        self.untrimmed, self.untrimmed_items = calls, before.items - self.trims[-1][1].items

    def asked_again(self, known: ParentFacts | None, once: list[str]) -> list[str]:
        """Return what is computed again; `known` is what the journal now holds of the parent."""
        missing, items = Intervals(self.untrimmed), self.untrimmed_items
        for call in [call for low, high in self.untrimmed for call in range(low, high)]:
            size = None if known is None else known.size_of(call)
            if size is not None:  # it is not erased yet
                missing.discard(call, call + 1)
                items -= size
        if not missing:
            return []
        first = ids.batch_path(self.path, missing.starts[0])
        who = "the script" if self.path == ids.ROOT else self.path
        text = (
            f"{counted(items, 'result')} of {counted(missing.count(), 'call')} of {who}, from "
            f"{first} on: they were dropped "
            "when checkpoints that are lost now covered them, and are computed again"
        )
        if once:
            names = ", ".join(name.rpartition(":")[2] for name in once)
            text += (
                f"; calls of {names} (idempotent=False) among them are started a second time then"
            )
        return [text]

    def drop_after_gaps(self) -> list[str]:
        """Remove the parent's observations after a gap."""
        known = Intervals()
        for _, record in self.observations:
            known.add(record.observations[0].no, record.observations[-1].no + 1)
        for _, trimmed in self.trims:
            for low, high in trimmed.observed:
                known.add(low, high)
        starts = {0, *(record.observations for _, record in self.checkpoints)}
        usable = Intervals([(at, known.end_of(at)) for at in starts if at in known])
        gone = [
            (key, r.observations[0].no)
            for key, r in self.observations
            if r.observations[0].no not in usable
        ]
        self.changes += [Erase(Table.LOG, key) for key, _ in gone]
        if not gone:
            return []
        at = min(first for _, first in gone)
        where = f"the answers that {self.path} got before number {at}"
        return [f"table log: {where} are incomplete; those after them are dropped"]

    def _drop(self, record: Checkpoint, why: str) -> None:
        self.gone.append((record, why))
        self.changes += [Erase(Table.LOG, key) for key, each in self.checkpoints if each is record]
        self.checkpoints = [(key, each) for key, each in self.checkpoints if each is not record]

    def _uncovered(self, trimmed: Trimmed) -> tuple[Intervals, Intervals]:
        """Return the trimmed batches and observations that no checkpoint covers."""
        calls, observed = Intervals(trimmed.calls), Intervals(trimmed.observed)
        for each in self.newest().values():
            if each.entry < each.calls:
                calls.discard(each.entry, each.calls)
            if each.entry_observation < each.observations:
                observed.discard(each.entry_observation, each.observations)
        return calls, observed

    def _cut(self, trimmed: Trimmed) -> Trimmed:
        """Return what may stay trimmed; the number of its items is known only in total."""
        gone, untold = self._uncovered(trimmed)
        calls, observed = Intervals(trimmed.calls), Intervals(trimmed.observed)
        all_calls = calls.count()
        for low, high in gone:
            calls.discard(low, high)
        for low, high in untold:
            observed.discard(low, high)
        items = trimmed.items * calls.count() // all_calls if all_calls else trimmed.items
        there = self.newest()
        blocks = [each for each in trimmed.blocks if tuple(each) in there]
        return Trimmed(trimmed.parent, list(calls), list(observed), items, blocks)


def _is_after_gap(record: Checkpoint, calls: Intervals, observed: Intervals) -> bool:
    return bool(
        (calls and record.calls > calls.starts[0])
        or (observed and record.observations > observed.starts[0])
    )


def _can_end(parent: ParentFacts, call: int, journal: Journal) -> bool:
    """Return whether a batch that a checkpoint waits for is done, or can still be computed."""
    batch = parent.batches.get(call)
    if batch is None:
        return call in parent.finished and call not in parent.dropped
    return all(
        journal.get(Table.ARGS, ids.record_key(parent.prefix, record)) is not None
        for record in _undone_records(batch)
    )


def _undone_records(batch: Batch) -> set[int]:
    return {piece.record for piece in batch.pieces if batch.undone.overlap(piece.start, piece.stop)}


def _parents(journal: Journal, states: BlobStore) -> dict[str, _Parent]:
    found: dict[str, _Parent] = {}
    for key, raw in journal.scan(Table.LOG):
        record = decoded(decode_logged, raw)
        if isinstance(record, Checkpoint | Trimmed | Observed):
            parent = found.setdefault(record.parent, _Parent(record.parent, states))
            parent.take(key, record)
    return found


def _log(journal: Journal) -> Iterator[tuple[bytes, Logged]]:
    for key, raw in journal.scan(Table.LOG):
        record = decoded(decode_logged, raw)
        if record is not None:
            yield key, record


def _defines(journal: Journal) -> Iterator[Define]:
    for _, raw in journal.scan(Table.DEFINE):
        record = decoded(decode_up, raw)
        if isinstance(record, Define):
            yield record
