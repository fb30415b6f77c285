"""The status of a run, read from its journal: for `status`, `runs` and `attach`.

Reading costs the broker nothing (LMDB readers see one moment and do not block) and works on ended
runs. Figures count the records in the log, and the tally of records that it no longer holds
(`core.facts.tally`): they equal the broker's own. Values are counted, never unpickled.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import msgspec

from resilient_scoop.adapters.synced_files import write_synced
from resilient_scoop.core.events import Table
from resilient_scoop.core.facts.tally import title
from resilient_scoop.core.ports import Readable
from resilient_scoop.errors import JournalError, JournalFormatError, RscoopError
from resilient_scoop.ids import ROOT, batch_path, depth, item_path, numbers
from resilient_scoop.journal import writer_lock
from resilient_scoop.journal.place import GENERATION_FILE, data_file
from resilient_scoop.journal.view import JournalView
from resilient_scoop.runs.counting import Count, ReplayStatus
from resilient_scoop.runs.folder import RunDir, RunInfo
from resilient_scoop.wire.messages import (
    Define,
    Output,
    Progress,
    RunEnded,
    decode_up,
)
from resilient_scoop.wire.tally import TALLY_KEY, FunctionWork, Tally, decode_tally

BATCHES_SHOWN_MAX: Final = 20
REPLAY_RESULTS: Final = 200_000
"""A replay of so many results takes some seconds besides the parent's own time: worth a checkpoint."""
REPLAY_BYTES: Final = 256 << 20
_PAGE_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class BatchStatus:
    """One unfinished batch of a parent."""

    path: str
    name: str  # of the function
    done: int
    total: int
    whole: bool  # no more items follow: `total` is the end


@dataclass(frozen=True, slots=True)
class FunctionStatus:
    """The results of the calls of one function."""

    name: str
    done: int  # values
    failed: int  # exceptions
    spent_s: float  # all together, on all workers


@dataclass(frozen=True, slots=True)
class ItemStatus:
    """The last progress of an item that is not done, from `futures.progress`."""

    path: str
    name: str  # of the function
    done: float
    total: float | None
    keeps: bool  # the next attempt continues from there
    label: str = ""


@dataclass(frozen=True, slots=True)
class RunStatus:
    """A run in numbers, at one moment."""

    done: int = 0
    total_known: int = 0  # items so far; a parent may make more calls at any time
    failed: int = 0  # how many of the done ones failed
    batches: tuple[BatchStatus, ...] = ()  # unfinished ones, at most BATCHES_SHOWN_MAX
    items: tuple[ItemStatus, ...] = ()  # items with progress, at most BATCHES_SHOWN_MAX
    functions: tuple[FunctionStatus, ...] = ()  # sorted by time, longest first
    batches_done: int = 0
    crashes: int = 0  # processes that died without being stopped: workers, the script's, the broker
    resubmitted: int = 0  # items that a dead worker held, and that were assigned again
    retried: int = 0  # second tries under `retries=`
    workers: int = 0
    output_bytes: int = 0
    ended: RunEnded | None = None
    journal_bytes: int = 0
    computed_s: float = 0.0  # seconds of computing, all workers together
    replays: tuple[ReplayStatus, ...] = ()  # parents whose replay would take long

    @property
    def in_flight(self) -> int:
        """Items not done: queued, running, or waiting for children."""
        return self.total_known - self.done


def scan_status(view: Readable, workers: int = 0, journal_bytes: int = 0) -> RunStatus:
    """Return the figures of the run with this journal."""
    names, titles = _names(view)
    count = Count(titles)
    for _, value in view.scan(Table.LOG):
        count.take(value)
    raw = view.get(Table.META, TALLY_KEY)
    tally = None if raw is None else decode_tally(raw)
    count.end(tally)
    opened = [
        BatchStatus(
            batch_path(parent, call),
            names.get(batch.fn, "?"),
            batch.done.count(),
            batch.wanted,
            batch.whole,
        )
        for (parent, call), batch in count.batches.items()
        if not (batch.whole and batch.done.count() >= batch.wanted)
    ]
    opened.sort(key=_by_place)
    fns = {at: names.get(batch.fn, "?") for at, batch in count.batches.items()}
    apart = tally or Tally(crashes=count.crashes, resubmitted=len(count.crashed))
    trimmed = apart.gone + sum(
        n for path, n in count.items_trimmed.items() if not count.has_ended(path)
    )
    long = [r for r in count.replays.values() if _is_long(r)]
    return RunStatus(
        done=trimmed + sum(batch.done.count() for batch in count.batches.values()),
        total_known=trimmed + sum(max(b.wanted, b.done.count()) for b in count.batches.values()),
        failed=sum(each.failed for each in count.functions.values()),
        batches=tuple(opened[:BATCHES_SHOWN_MAX]),
        items=tuple(_items(view, fns)),
        functions=tuple(_functions(count.functions)),
        batches_done=len(count.batches) - len(opened),
        crashes=apart.crashes,
        resubmitted=apart.resubmitted,
        retried=apart.retried,
        workers=workers,
        output_bytes=sum(len(piece) for piece in OutputTail().pieces(view)),
        ended=read_ended(view),
        journal_bytes=journal_bytes,
        computed_s=count.computed_s,
        replays=tuple(sorted(long, key=lambda each: -each.results)[:BATCHES_SHOWN_MAX]),
    )


def _items(view: Readable, fns: dict[tuple[str, int], str]) -> Iterator[ItemStatus]:
    for shown, (_, value) in enumerate(view.scan(Table.PROGRESS)):
        message = decode_up(value)
        if shown >= BATCHES_SHOWN_MAX:
            return
        if isinstance(message, Progress):
            path = (
                item_path(message.parent, message.call, message.index) if message.parent else ROOT
            )
            name = fns.get((message.parent, message.call), "?") if message.parent else "script"
            yield ItemStatus(
                path, name, message.done, message.total, bool(message.payload), message.label
            )


def _is_long(replay: ReplayStatus) -> bool:
    return replay.results >= REPLAY_RESULTS or replay.size_bytes >= REPLAY_BYTES


class OutputTail:
    """Reads the script's output; each reading continues at the end of the last one."""

    def __init__(self, shown_bytes: int = 0) -> None:
        self.offset = shown_bytes
        self._after: bytes | None = None

    def pieces(self, view: Readable) -> Iterator[bytes]:
        """Yield new output, in order, a page at a time."""
        while page := view.read(Table.OUTPUT, after=self._after, limit_bytes=_PAGE_BYTES):
            for key, value in page:
                self._after = key
                piece = decode_up(value)
                if isinstance(piece, Output):
                    new = piece.data[max(0, self.offset - piece.offset) :]
                    if new:
                        self.offset += len(new)
                        yield new


def read_ended(view: Readable) -> RunEnded | None:
    """Return how the script ended, or None if it has not."""
    value = view.get(Table.META, b"ended")
    if value is None:
        return None
    record = decode_up(value)
    return record if isinstance(record, RunEnded) else None


def _functions(functions: dict[str, FunctionWork]) -> list[FunctionStatus]:
    found = [
        FunctionStatus(name, work.done - work.failed, work.failed, work.spent_s)
        for name, work in functions.items()
        if work.done
    ]
    return sorted(found, key=lambda each: (-each.spent_s, each.name))


def _names(view: Readable) -> tuple[dict[bytes, str], dict[bytes, str]]:
    """Return the names of functions by id and by fingerprint."""
    found, by_fingerprint = {}, {}
    for key, value in view.scan(Table.DEFINE):
        record = decode_up(value)
        if isinstance(record, Define):
            found[key] = by_fingerprint[record.fingerprint] = title(record)
    return found, by_fingerprint


def _by_place(batch: BatchStatus) -> tuple[int, list[int]]:
    """Sort by depth, then by the numbers in the path."""
    return depth(batch.path), numbers(batch.path)


class RunState(StrEnum):
    """The state of a run; one that is not running can be resumed unless it is finished."""

    RUNNING = "running"
    FINISHED = "finished"
    FAILED = "failed"  # the script raised an exception, or ended with an exit code that is not 0
    STOPPED = "stopped"  # ended before its script: by a signal, a crash, a power cut
    DAMAGED = "damaged"  # its folder or its journal can't be read
    NEWER = "newer-format"  # of a format that this version does not know


def state_of_error(error: RscoopError | None) -> RunState:
    """Return the state of a run that can't be read."""
    newer = isinstance(error, JournalFormatError) and error.newer
    return RunState.NEWER if newer else RunState.DAMAGED


def is_live(run: RunDir) -> bool:
    """Return whether the run's launcher or its broker is alive."""
    return run.is_held() or writer_lock.holder(run.journal) is not None


def state_of(run: RunDir, ended: RunEnded | None) -> RunState:
    """Return the state of a run; `ended` is its journaled end."""
    if is_live(run):
        return RunState.RUNNING
    if ended is None:
        return RunState.STOPPED
    return RunState.FAILED if ended.failed or ended.code else RunState.FINISHED


def open_view(run: RunDir) -> JournalView | None:
    """Open the run's journal to read it; None while there is none yet.

    Raises:
        JournalDamagedError: what is stored is not what was written.
    """
    if not (run.journal / GENERATION_FILE).exists():
        return None
    return JournalView.open(run.journal)


def read_status(run: RunDir, info: RunInfo) -> RunStatus:
    """Return the figures of a run, live or ended.

    Raises:
        JournalError: its journal can't be read; the text says what to do.
    """
    view = open_view(run)
    if view is None:
        return RunStatus(workers=info.workers)
    with view:
        return scan_status(view, info.workers, view.size_bytes())


def cached_status(run: RunDir, info: RunInfo) -> RunStatus:
    """As `read_status`, with a cache for ended runs: their journals do not change."""
    stamp = _stamp(run)
    path = run.path / "figures.json"
    if stamp is None or is_live(run):
        return read_status(run, info)
    try:
        kept = msgspec.json.decode(path.read_bytes(), type=_Kept)
        if kept.stamp == stamp:
            return kept.status
    except (OSError, msgspec.MsgspecError):
        pass  # none, or of another version: counted again
    status = read_status(run, info)
    if _stamp(run) == stamp:
        with suppress(OSError):  # a full disk, or a read-only folder: counted again next time
            write_synced(path, msgspec.json.encode(_Kept(stamp, status)))
    return status


class _Kept(msgspec.Struct, frozen=True):
    stamp: tuple[int, int]
    status: RunStatus


def _stamp(run: RunDir) -> tuple[int, int] | None:
    """Return what changes with every commit: size and time of the journal's data file."""
    try:
        found = data_file(run.journal).stat()
    except (OSError, JournalError):
        return None
    return found.st_size, found.st_mtime_ns
