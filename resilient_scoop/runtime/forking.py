"""A new run that begins with what another one has: `rscoop fork`.

Keys of a journal are digests of (run, path), so records are copied under the new run's keys and
cannot be met by the old one's. What is shared is what is large: files of payloads are hard links,
and both runs treat them as read-only. The new run has the old one's seed, and so its answer up to
there; it has no output yet, since its replay writes that again.

  F1  Everything of the script's calls below `at` is taken: what was asked, what came of it, blame,
      and the nested parents under them that are not done.
  F2  An observation is taken if it was told before call `at` was made; those are a prefix of the
      history, so that their numbers stay without a gap.
  F3  The source is only read, and may be live: a parent's records are read in their order.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from resilient_scoop import ids
from resilient_scoop.adapters.journal import Journal
from resilient_scoop.adapters.journal_view import JournalView
from resilient_scoop.core.events import INPUT_KEY, Put, Table
from resilient_scoop.runtime import decisions
from resilient_scoop.runtime.recorded import recorded_input
from resilient_scoop.wire import messages as wire

if TYPE_CHECKING:
    from collections.abc import Iterator

    from resilient_scoop.core.events import Change
    from resilient_scoop.runtime.rundir import RunDir

_COMMIT_BYTES: Final = 16 << 20


@dataclass(slots=True)
class Taken:
    """What a fork has taken over."""

    results: int = 0
    undone: int = 0  # items that were asked for and have no outcome
    calls: int = 0  # of the script


def cut(record: wire.Logged, at: int | None) -> wire.Logged | None:  # noqa: PLR0911 - a table
    """Return what of a record belongs to the time before the script's call `at` (F1, F2)."""
    if at is None:
        return record
    if record.parent != ids.ROOT:
        return record if root_call(record.parent) < at else None
    match record:
        case wire.Calls(parts=parts):
            kept = [part for part in parts if part.call < at]
            return wire.Calls(record.parent, record.attempt, kept) if kept else None
        case wire.Outcomes(items=items):
            outcomes = [item for item in items if item.call < at]
            return wire.Outcomes(record.parent, outcomes) if outcomes else None
        case wire.Observed(observations=observations):
            told = [each for each in observations if each.at_call <= at]
            return wire.Observed(record.parent, record.attempt, told) if told else None
        case wire.Crashed(call=call) | wire.Intent(call=call):
            return record if call < at else None
        case wire.Checkpoint(calls=calls):
            return record if calls <= at else None
        case wire.Trimmed():
            return record if all(stop <= at for _, stop in record.calls) else None


def root_call(path: str) -> int:
    """Return the number of the script's call that a nested parent descends from."""
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

    def __init__(self, view: JournalView, run: bytes, at: int | None) -> None:
        self.view = view
        self.run = run
        self.at = at
        self.taken = Taken()
        self._calls: set[int] = set()
        self._known: dict[tuple[str, int], int] = {}

    def changes(self) -> Iterator[Change]:
        """Yield the records of the new journal."""
        for table in (Table.DEFINE, Table.CONST):
            for key, value in self.view.scan(table):
                yield Put(table, key, value)
        epoch = self.view.get(Table.META, b"epoch")
        if epoch is not None:
            yield Put(Table.META, b"epoch", epoch)  # attempts of the old run stay older than ours
        boot = self.view.get(Table.META, b"boot")
        if boot is not None:
            yield Put(Table.META, b"boot", boot)
        for read in recorded_input(self.view):
            yield Put(Table.META, INPUT_KEY + read.no.to_bytes(8, "big"), wire.encode(read))
        for key, raw in self.view.scan(Table.LOG):
            yield from self._log(key, raw)
        known = sum(self._known.values())
        self.taken.undone = max(0, known - self.taken.results)
        self.taken.calls = len(self._calls)

    def _log(self, key: bytes, raw: bytes) -> Iterator[Change]:
        record = wire.decode_logged(raw)
        kept = cut(record, self.at)
        if kept is None:
            return
        mine = ids.log_prefix(self.run, record.parent) + key[ids.KEY_BYTES :]
        if isinstance(record, wire.Calls) and isinstance(kept, wire.Calls):
            args = self._args(key, record, kept)
            if args is not None:  # else its items are all done
                yield Put(Table.ARGS, mine, wire.encode(args))
        self._count(kept)
        yield Put(Table.LOG, mine, raw if kept is record else wire.encode(kept))

    def _args(self, key: bytes, record: wire.Calls, kept: wire.Calls) -> wire.Args | None:
        raw = self.view.get(Table.ARGS, key)
        frame = None if raw is None else wire.decode_up(raw)
        return cut_args(record, kept, frame) if isinstance(frame, wire.Args) else None

    def _count(self, record: wire.Logged) -> None:
        if isinstance(record, wire.Calls):
            for part in record.parts:
                at = (record.parent, part.call)
                self._known[at] = max(self._known.get(at, 0), part.start + part.count)
                if record.parent == ids.ROOT:
                    self._calls.add(part.call)
        elif isinstance(record, wire.Outcomes):
            self.taken.results += sum(len(item.values) for item in record.items)


def fork(source: RunDir, target: RunDir, run: bytes, at: int | None) -> Taken:
    """Fill the new run's journal from another's; `run` is the new run's UUID.

    Raises:
        JournalError: the source cannot be read or the target not be written.
    """
    _link_files(source.path / "payloads", target.path / "payloads")
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


def _link_files(source: Path, target: Path) -> None:
    """Share the files of large payloads: they are never changed, only removed by name."""
    if not source.is_dir():
        return
    target.mkdir(mode=0o700, exist_ok=True)
    for path in source.iterdir():
        if path.suffix == ".tmp":
            continue
        try:
            os.link(path, target / path.name)
        except FileNotFoundError:
            continue  # an argument whose call has just ended
        except OSError:  # another file system, or one without links
            shutil.copyfile(path, target / path.name)
    descriptor = os.open(target, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def parse_batch(text: str) -> int | None:
    """Return the number of one of the script's calls: `0.17`, `17`; None for anything else."""
    number = text.removeprefix(f"{ids.ROOT}.")
    return int(number) if number.isdecimal() else None
