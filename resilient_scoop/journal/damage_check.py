"""Check a journal for damage, in a child process, because damage may kill the process that reads it.

Invalid pages make LMDB abort the process, and a cut file kills it (SIGBUS); so the checker is a
child: it writes its findings line by line, and if a signal ends it, that is a finding too. Three
depths:

- RECORDS    every record's envelope (CRC over table, key and payload), and that files that records
             name are there in their size: half a million records/s
- STRUCTURE  also LMDB's own invariants, page by page in pure Python: 100 MB/s
- CONTENTS   also the digest of every file: 1.3 GB/s

A missing file is a problem of the record that names it; the file of a large result (written by
workers, beside the journal) is checked like the journal's own.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from enum import IntEnum
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from resilient_scoop.core.events import Table
from resilient_scoop.errors import JournalDamagedError, JournalError
from resilient_scoop.journal import result_files
from resilient_scoop.journal.blobs import BlobError, BlobStore, unpack_ref
from resilient_scoop.journal.envelope import BLOB, EnvelopeError, unseal
from resilient_scoop.journal.place import DATA_FILE, data_folder, read_generation
from resilient_scoop.journal.state_store import FOLDER as STATES
from resilient_scoop.wire.messages import Checkpoint, decode_logged
from resilient_scoop.wire.payload_tags import FILE

CHECKPOINT_MARK: Final = b"\xaaCheckpoint"
"""The tag in the frame of such a record (msgpack)."""
CHECKPOINT_HEAD_BYTES: Final = 16
SMALL_BYTES_MAX: Final = 8 << 20
"""Up to this size, `check_here` takes less time (80 ms) than starting a child."""
PROBLEMS_MAX: Final = 1000
"""Number of listed problems; all are counted."""
_PACKAGE_PARENT: Final = str(Path(__file__).resolve().parents[2])
_CHILD: Final = (
    "import sys; sys.path.append(sys.argv[1]); "
    "from resilient_scoop.journal.damage_check import main; main(*sys.argv[2:])"
)


class Depth(IntEnum):
    """How much is checked."""

    RECORDS = 0
    STRUCTURE = 1
    CONTENTS = 2


class Problem(msgspec.Struct, frozen=True, tag=True):
    """One damage; with `table` and `key` (hexadecimal) if it is in a record."""

    text: str
    table: str | None = None
    key: str | None = None


class Summary(msgspec.Struct, frozen=True, tag=True):
    """The last line of a checker that reached the end."""

    records: int
    payload_bytes: int
    problems: int


class CheckResult(msgspec.Struct, frozen=True):
    """The result of a check."""

    problems: list[Problem]
    records: int = 0
    payload_bytes: int = 0
    problems_total: int = 0

    @property
    def sound(self) -> bool:
        """Whether nothing was found."""
        return not self.problems

    def raise_if_damaged(self, directory: Path) -> None:
        """Raise JournalDamagedError for the first problem, if there is one."""
        if self.problems:
            first = self.problems[0]
            more = f" (and {self.problems_total - 1} more)" if self.problems_total > 1 else ""
            key = None if first.key is None else bytes.fromhex(first.key)
            raise JournalDamagedError(str(directory), first.text + more, first.table, key)


def check(
    directory: Path, depth: Depth, *, data: Path | None = None, states: bool = True
) -> CheckResult:
    """Check a journal without a writer; `data` is another folder with its data file.

    Without `states`, files of checkpoints are not checked: a run can continue from the earlier
    checkpoint if one is lost, and the journal must open for that.
    """
    folder = data or data_folder(directory, read_generation(directory))
    where = [str(folder), depth.name, str(directory), "states" if states else ""]
    done = subprocess.run(  # noqa: S603 - our own interpreter and code
        [sys.executable, "-P", "-c", _CHILD, _PACKAGE_PARENT, *where],
        capture_output=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    problems: list[Problem] = []
    summary = None
    for line in done.stdout.splitlines():
        found = _decode(line)
        if isinstance(found, Problem):
            problems.append(found)
        elif found is not None:
            summary = found
    if summary is None:
        problems.append(Problem(_end_text(done)))
        return CheckResult(problems, problems_total=len(problems))
    return CheckResult(problems, summary.records, summary.payload_bytes, summary.problems)


def check_here(directory: Path) -> None:
    """Check the structure of a small journal without a child: pages are read as plain bytes.

    Raises:
        JournalDamagedError: LMDB could fail on this file.
    """
    report = _Report(quiet=True)
    _check_structure(directory, report)
    if report.first is not None:
        raise JournalDamagedError(str(directory), report.first)


def _decode(line: bytes) -> Problem | Summary | None:
    try:
        return msgspec.json.decode(line, type=Problem | Summary)
    except msgspec.DecodeError:  # the last line of a child that was killed
        return None


def _end_text(done: subprocess.CompletedProcess[bytes]) -> str:
    if done.returncode < 0:
        return f"reading {DATA_FILE} killed the checker ({signal.Signals(-done.returncode).name})"
    last = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
    return f"the checker ended with status {done.returncode}: {last}"


# The functions below run in a child process.


class _Report:
    """Counts, and writes each problem at once, because the next read may kill the process."""

    def __init__(self, *, quiet: bool = False) -> None:
        self.quiet = quiet
        self.first: str | None = None
        self.problems = 0
        self.records = 0
        self.payload_bytes = 0

    def problem(self, text: str, table: Table | None = None, key: bytes | None = None) -> None:
        self.problems += 1
        self.first = self.first or text
        if not self.quiet and self.problems <= PROBLEMS_MAX:
            name = None if table is None else table.name.lower()
            self.line(Problem(text, name, None if key is None else key.hex()))

    def line(self, what: Problem | Summary) -> None:
        sys.stdout.buffer.write(msgspec.json.encode(what) + b"\n")
        sys.stdout.buffer.flush()


def main(directory: str, depth: str, blobs: str, states: str) -> None:
    """Check and report on standard output; runs in the child."""
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # this process may die: it exists for that
    report = _Report()
    if Depth[depth] >= Depth.STRUCTURE:
        _check_structure(Path(directory), report)
    _check_records(Path(directory), Path(blobs), Depth[depth], report, states=bool(states))
    report.line(Summary(report.records, report.payload_bytes, report.problems))


def _check_structure(directory: Path, report: _Report) -> None:
    from lmdb import verify

    try:
        problems: list[str] = verify.verify(str(directory))  # type: ignore[no-untyped-call]  # the program has no types
        for text in problems:
            report.problem(text)
    except (verify.VerifyError, OSError) as error:
        report.problem(str(error))


def _check_records(
    directory: Path, blobs: Path, depth: Depth, report: _Report, *, states: bool
) -> None:
    import lmdb

    from resilient_scoop.journal.store import JournalStore, open_copy

    try:
        store = open_copy(directory, blobs)
    except JournalError as error:
        report.problem(error.reason)
        return

    def records(store: JournalStore, table: Table) -> Iterator[tuple[bytes, memoryview]]:
        if store.tables[table] is None:
            return
        with store.begin() as txn:
            for key, value in txn.cursor(store.tables[table]).iternext():
                yield bytes(key), value

    results = blobs.parent / result_files.FOLDER
    kept = BlobStore(blobs.parent / STATES) if states else None
    files = _NamedFiles(store.blobs, kept, results, depth >= Depth.CONTENTS)
    for table in Table:
        try:
            for key, value in records(store, table):
                _check_record(table, key, value, files, report)
        except lmdb.Error as error:
            report.problem(f"reading on is not possible: {error}", table)


def _check_state(payload: bytes, files: _NamedFiles) -> None:
    """Check the file of a checkpoint, if it has one."""
    if files.states is None:
        return
    record = decode_logged(payload)
    if isinstance(record, Checkpoint) and record.payload[:1] == FILE:
        ref = unpack_ref(record.payload[1:])
        (files.states.read if files.contents else files.states.look)(ref)


class _NamedFiles(NamedTuple):
    """The folders of the files that records name."""

    blobs: BlobStore
    states: BlobStore | None  # None: they are not checked
    results: Path
    contents: bool  # their content is read, too


def _check_record(
    table: Table, key: bytes, value: memoryview, files: _NamedFiles, report: _Report
) -> None:
    report.records += 1
    try:
        flags, payload = unseal(table, key, value)
        if flags & BLOB:
            ref = unpack_ref(payload)
            report.payload_bytes += ref.size_bytes
            if not files.contents:
                files.blobs.look(ref)
                return
            payload = files.blobs.read(ref)
        else:
            report.payload_bytes += len(payload)
        if CHECKPOINT_MARK in payload[:CHECKPOINT_HEAD_BYTES]:
            _check_state(payload, files)
        for text in result_files.problems(files.results, payload, contents=files.contents):
            report.problem(text, table, key)
    except (EnvelopeError, BlobError, ValueError) as error:
        report.problem(str(error), table, key)
