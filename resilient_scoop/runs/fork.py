"""`rscoop fork`: a new run that starts with the results of another one.

Keys of a journal are digests of (run, path), so records are copied under keys of the new run and
cannot be confused with those of the old one. Only large data is shared: files of payloads are hard
links, and both runs treat them as read-only. The new run has the seed of the old one, and so the
same answer up to the point; without a checkpoint, its replay writes the output again.

  F1  All records of the script's batches below `Point.call` are copied: calls, outcomes, crashes, and
      the unfinished nested parents below them.
  F2  An observation is copied if it was made before that point; these are a prefix of the history, so
      their numbers have no gap.
  F3  The source may be live. What is copied is the run at one moment (`moment`): of records and files
      that are read one after another, a live run would have dropped some in between.
  F4  Records that were trimmed below the point must be covered by a checkpoint that is copied, else
      there is no fork (`check_point`). The new run does not know what was trimmed after the point.
  F5  A checkpoint holds the position in the script's output, and nothing before it is written again:
      that part of the output is copied.
  F6  All input that the script has read is copied, including input read after the point: the input
      belongs to the run, like its arguments, and a script that starts again reads it from the
      beginning. The position of a batch in the input is unknown, and input cannot be read again.
  F7  For the script's batches after the point, results that depend only on function and arguments are
      copied without a place: equal calls of the new run find them (`core.parent.moved`).
  F8  A script that failed after a wait that ended without a result waits again in a copy of the whole
      run (`core.parent.history`, P2a).
"""

from __future__ import annotations

import os
import shutil
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, assert_never

import msgspec

from resilient_scoop import ids
from resilient_scoop.adapters.synced_files import sync_folder
from resilient_scoop.core.events import FAILED_KEY, INPUT_KEY, PYTHON_KEY, Put, Table
from resilient_scoop.core.facts.intervals import Intervals
from resilient_scoop.core.facts.outcomes import succeeded
from resilient_scoop.core.facts.visitor import LogVisitor
from resilient_scoop.journal import state_store
from resilient_scoop.journal.journal import Journal
from resilient_scoop.journal.moment import one_moment
from resilient_scoop.journal.view import JournalView
from resilient_scoop.runs import decisions, stdin_rest
from resilient_scoop.runs.folder import KEPT_SCRIPT, RunDir
from resilient_scoop.runs.recorded_streams import read_failed, recorded_input, recorded_output
from resilient_scoop.runs.status import read_ended
from resilient_scoop.wire import messages as wire

if TYPE_CHECKING:
    from collections.abc import Iterator

    from resilient_scoop.core.events import Change
    from resilient_scoop.core.facts.generations import Generation
    from resilient_scoop.core.facts.parent import ParentFacts

_COMMIT_BYTES: Final = 16 << 20
_OUTPUT_BYTES: Final = 1 << 16  # of one record
_NOBODY: Final = wire.Attempt(0, 0)  # older than any attempt of the new run


@dataclass(slots=True)
class ForkCounts:
    """What a fork has copied."""

    results: int = 0
    undone: int = 0  # items without an outcome
    calls: int = 0  # of the script
    checkpoints: int = 0
    covered: int = 0  # items whose results are covered by a checkpoint


@dataclass(frozen=True, slots=True)
class Point:
    """A point in the script's history: before it made batch `call`."""

    call: int
    observations: int | None = None  # observations below; None: all before the batch
    seq: int | None = None  # the newest checkpoint that counts; None: all before the batch

    def has_made(self, kept: Generation) -> bool:
        """Return whether a checkpoint is before the point."""
        return kept.calls <= self.call and (self.seq is None or kept.seq <= self.seq)


def cut(  # noqa: PLR0911 - a table
    record: wire.Logged, at: Point | None, seq: int = 0
) -> wire.Logged | None:
    """Return the part of a record, by its sequence number, that is before a point (F1, F2)."""
    if at is None:
        return record
    if record.parent != ids.ROOT:
        return record if root_call(record.parent) < at.call else None
    match record:
        case wire.Calls(parts=parts):
            kept = [part for part in parts if part.call < at.call]
            return wire.Calls(record.parent, record.attempt, kept) if kept else None
        case wire.Outcomes(items=items):
            outcomes = [item for item in items if item.call < at.call]
            outcomes += [part for item in items if item.call >= at.call for part in _unbound(item)]
            return wire.Outcomes(record.parent, outcomes) if outcomes else None
        case wire.Observed(observations=observations):
            earlier = [each for each in observations if _is_before(each, at)]
            return wire.Observed(record.parent, record.attempt, earlier) if earlier else None
        case wire.Crashed(call=call) | wire.Intent(call=call) | wire.Abandoned(call=call):
            return record if call < at.call else None
        case wire.Checkpoint(calls=calls):
            return record if calls <= at.call and (at.seq is None or seq <= at.seq) else None
        case wire.Trimmed():
            return _cut_trimmed(record, at)
        case _:
            assert_never(record)


def _unbound(item: wire.Outcome) -> list[wire.Outcome]:
    """Return the part of an outcome that is not bound to a place, for equal calls in the fork (F7)."""
    if not item.pure:
        return []
    return [msgspec.structs.replace(part, call=-1, task=None) for part in succeeded(item)]


def _is_before(each: wire.Observation, at: Point) -> bool:
    return each.at_call <= at.call if at.observations is None else each.no < at.observations


def _cut_trimmed(record: wire.Trimmed, at: Point) -> wire.Trimmed | None:
    """Return what was trimmed before a point; for a part of it, the items are those of single batches."""
    calls = Intervals(record.calls).overlap(0, at.call)
    observed = record.observed
    if at.observations is not None:
        observed = Intervals(observed).overlap(0, at.observations)
    if calls == record.calls and observed == record.observed:
        return record
    if not calls and not observed:
        return None
    items = min(record.items, Intervals(calls).count())
    return wire.Trimmed(record.parent, calls, observed, items, record.blocks)


def check_point(parent: ParentFacts, at: Point) -> bool:
    """Return whether everything before a point exists, or is covered by a checkpoint before it (F4)."""
    covered = Intervals()
    for block in parent.blocks.values():
        for kept in block:
            if at.has_made(kept) and kept.calls > kept.entry:
                covered.add(kept.entry, kept.calls)
    return all(covered.covers(*span) for span in parent.dropped.overlap(0, at.call))


def first_call(parent: ParentFacts) -> int:
    """Return the first batch after a trimmed one at which the run can be forked."""
    made = sorted(kept.calls for block in parent.blocks.values() for kept in block)
    first = parent.dropped.stops[-1] if parent.dropped else 0
    return next((calls for calls in made if calls >= first), parent.next_call())


def root_call(path: str) -> int:
    """Return the number of the script's batch from which a nested parent descends."""
    return int(path.split(".")[1].partition("[")[0])


def cut_args(before: wire.Calls, after: wire.Calls, args: wire.Args) -> wire.Args:
    """Return the arguments of the parts that were kept."""
    if len(before.parts) == len(after.parts):
        return args
    kept, offset = [], 0
    for part in before.parts:
        if part in after.parts:
            kept += args.args[offset : offset + part.count]
        offset += part.count
    return wire.Args(kept)


class Fork:
    """Copies one journal into another run's."""

    def __init__(self, view: JournalView, run: bytes, at: Point | None) -> None:
        self.view = view
        self.run = run
        self.at = at
        self.taken = ForkCounts()
        self._counts = _Counts()
        self._output_bytes = 0  # how much output was written, according to the checkpoints
        self._blocks: set[tuple[str, int]] = set()  # of the script, with a checkpoint

    def changes(self) -> Iterator[Change]:
        """Yield the records of the new journal, all input included (F6)."""
        for table in (Table.DEFINE, Table.CONST):
            for key, value in self.view.scan(table):
                yield Put(table, key, value)
        epoch = self.view.get(Table.META, b"epoch")
        if epoch is not None:
            yield Put(Table.META, b"epoch", epoch)  # attempts of the old run stay older than ours
        for name in (b"boot", PYTHON_KEY):
            found = self.view.get(Table.META, name)
            if found is not None:
                yield Put(Table.META, name, found)
        for read in recorded_input(self.view):
            yield Put(Table.META, ids.record_key(INPUT_KEY, read.no), wire.encode(read))
        yield from self._failure()
        for key, raw in self.view.scan(Table.LOG):
            yield from self._log(key, raw)
        yield from self._output()
        known = sum(self._counts.known.values())
        self.taken.results = sum(done.count() for done in self._counts.done.values())
        self.taken.undone = max(0, known - self.taken.results)
        self.taken.calls = len(self._counts.calls)
        self.taken.covered = sum(self._counts.items_trimmed.values())
        self.taken.checkpoints = self._counts.checkpoints

    def _failure(self) -> Iterator[Change]:
        """Yield which answers the script does not get again, because it failed after them (F8)."""
        ended = read_ended(self.view)
        failed = read_failed(self.view) if ended is None else ended
        if self.at is None and failed is not None and failed.again:
            kept = wire.RunEnded(failed.attempt, failed.code, failed.failed, again=failed.again)
            yield Put(Table.META, FAILED_KEY, wire.encode(kept))

    def _log(self, key: bytes, raw: bytes) -> Iterator[Change]:
        """Yield what the new journal gets for one record of the log (F1, F2)."""
        record = wire.decode_logged(raw)
        seq = ids.seq_of(key)
        kept = cut(record, self.at, seq)
        if kept is None:
            return
        if record.parent == ids.ROOT and isinstance(kept, wire.Checkpoint):
            self._blocks.add((kept.name, kept.opening))
            self._output_bytes = max(self._output_bytes, kept.output_bytes)
        if kept is not record and isinstance(kept, wire.Trimmed):
            blocks = [each for each in kept.blocks if each in self._blocks]
            kept = wire.Trimmed(kept.parent, kept.calls, kept.observed, kept.items, blocks)
        mine = ids.log_prefix(self.run, record.parent) + key[ids.KEY_BYTES :]
        if isinstance(record, wire.Calls) and isinstance(kept, wire.Calls):
            args = self._args(key, record, kept)
            if args is not None:  # else all its items are done
                yield Put(Table.ARGS, mine, wire.encode(args))
        self._counts.visit(kept)
        yield Put(Table.LOG, mine, raw if kept is record else wire.encode(kept))

    def _output(self) -> Iterator[Change]:
        """Yield the output of the script before the newest checkpoint (F5)."""
        if not self._output_bytes:
            return
        written = recorded_output(self.view)[: self._output_bytes]
        for offset in range(0, len(written), _OUTPUT_BYTES):
            piece = wire.Output(_NOBODY, offset, written[offset : offset + _OUTPUT_BYTES])
            yield Put(Table.OUTPUT, ids.record_key(b"", offset), wire.encode(piece))

    def _args(self, key: bytes, record: wire.Calls, kept: wire.Calls) -> wire.Args | None:
        raw = self.view.get(Table.ARGS, key)
        frame = None if raw is None else wire.decode_up(raw)
        return cut_args(record, kept, frame) if isinstance(frame, wire.Args) else None


class _Counts(LogVisitor):
    """What the new journal holds, for display."""

    def __init__(self) -> None:
        self.known: dict[tuple[str, int], int] = {}
        self.done: dict[tuple[str, int], Intervals] = {}
        self.items_trimmed: dict[str, int] = {}
        self.calls: set[int] = set()  # of the script
        self.checkpoints = 0

    def asked(self, parent: str, part: wire.Part, _offset: int) -> None:
        at = (parent, part.call)
        self.known[at] = max(self.known.get(at, 0), part.start + part.count)
        if parent == ids.ROOT:
            self.calls.add(part.call)

    def ended(self, parent: str, outcome: wire.Outcome) -> None:
        if outcome.call >= 0:
            done = self.done.setdefault((parent, outcome.call), Intervals())
            done.add(outcome.start, outcome.start + len(outcome.values))

    def cut_off(self, parent: str, call: int, stop: int) -> None:
        self.known[parent, call] = min(self.known.get((parent, call), 0), stop)
        self.renewed(parent, call, stop, 1 << 62)

    def renewed(self, parent: str, call: int, start: int, stop: int) -> None:
        if (parent, call) in self.done:
            self.done[parent, call].discard(start, stop)

    def trimmed(self, record: wire.Trimmed) -> None:
        self.items_trimmed[record.parent] = record.items
        calls = Intervals(record.calls)
        for counted in (self.known, self.done):  # of partly erased records
            for at in [at for at in counted if at[0] == record.parent and at[1] in calls]:
                del counted[at]

    def saved(self, _record: wire.Checkpoint) -> None:
        self.checkpoints += 1


@contextmanager
def moment(source: RunDir) -> Iterator[RunDir]:
    """Yield a run as it is at one moment (F3), which is then looked at and forked.

    Raises:
        JournalError: its journal is damaged, or cannot be copied.
    """
    if not os.access(source.path, os.W_OK):  # no process writes there
        yield source
        return
    with one_moment(source.path) as folder:
        yield RunDir(folder)


def fork(source: RunDir, target: RunDir, run: bytes, at: Point | None) -> ForkCounts:
    """Fill the new run's journal from another's (`moment`); `run` is the new run's UUID.

    Raises:
        JournalError: the source cannot be read or the target not be written.
    """
    _link_all(source, target)
    for name in (KEPT_SCRIPT, stdin_rest.NAME):
        if (source.path / name).exists():
            shutil.copyfile(source.path / name, target.path / name)
    decisions.save(target.path, decisions.load(source.path).values())
    with JournalView.open(source.journal) as view:
        filled = Fork(view, run, at)
        journal = Journal.create(target.journal, run)
        clean = False
        try:
            _commit_all(journal, filled.changes())
            clean = True
        finally:
            journal.close(clean=clean)
    return filled.taken


def _commit_all(journal: Journal, changes: Iterator[Change]) -> None:
    waiting: list[Change] = []
    size_bytes = 0
    for change in changes:
        waiting.append(change)
        size_bytes += len(change.value) if isinstance(change, Put) else 0
        if size_bytes > _COMMIT_BYTES:
            journal.commit(waiting)
            waiting, size_bytes = [], 0
    if waiting:
        journal.commit(waiting)


def _link_all(source: RunDir, target: RunDir) -> None:
    for folder in ("payloads", state_store.FOLDER):
        _link_files(source.path / folder, target.path / folder)


def _link_files(source: Path, target: Path) -> None:
    """Share the files of large payloads and states: they are never changed, only removed by name."""
    if not source.is_dir():
        return
    target.mkdir(mode=0o700, exist_ok=True)
    for path in source.iterdir():
        if path.suffix == ".tmp":
            continue
        try:
            os.link(path, target / path.name)
        except OSError:  # another file system, or one without links
            shutil.copyfile(path, target / path.name)
    sync_folder(target)


def parse_batch(text: str) -> int | None:
    """Return the number of a batch of the script: `0.17`, `17`; None for anything else."""
    number = text.removeprefix(f"{ids.ROOT}.")
    return int(number) if number.isdecimal() else None
