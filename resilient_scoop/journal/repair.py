"""Make a new journal from the undamaged records of a damaged one.

The damaged journal is only read, from a private copy that is extended to its recorded length (a cut
file would kill its reader at the first missing page). Each table is read by a child; if that does
not reach the end, again in small steps, forward and backward. Records that the children have
committed to the new journal stay if damage kills them. A record with a wrong checksum is left out
and named.

The remaining records must be consistent (`journal.fit`): records that depend on lost ones are left
out as well. The replay repeats everything that is missing: it computes a result again, and sets a
constant again.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import lmdb
import msgspec

from resilient_scoop.core.events import Change, Put, Table
from resilient_scoop.errors import JournalDamagedError, JournalError, JournalFormatError
from resilient_scoop.journal import writer_lock
from resilient_scoop.journal.blobs import BlobError, unpack_ref
from resilient_scoop.journal.envelope import BLOB, EnvelopeError, unseal
from resilient_scoop.journal.fit import fit
from resilient_scoop.journal.journal import Journal
from resilient_scoop.journal.place import (
    DATA_FILE,
    FORMAT,
    GENERATION_FILE,
    GenerationFile,
    compact_number,
    data_folder,
    meta_pages,
    read_generation,
)
from resilient_scoop.journal.store import JournalStore, open_copy

OWN_KEYS: Final = (b"run", b"format", b"generation")
"""META records that a journal writes about itself."""
_GROUP_BYTES: Final = {"quick": 4 << 20, "forward": 4 << 10, "backward": 4 << 10}
"""Records per commit, for each way to read; all of them are lost if damage kills the child before."""
_PACKAGE_PARENT: Final = str(Path(__file__).resolve().parents[2])
_CHILD: Final = (
    "import sys; sys.path.append(sys.argv[1]); "
    "from resilient_scoop.journal.repair import main; main(*sys.argv[2:])"
)


class Repaired(msgspec.Struct, frozen=True):
    """What a repair kept (records per table), and its known losses."""

    kept: dict[str, int]
    lost: list[str]


def repair(directory: Path, target: Path, *, run: bytes | None = None) -> Repaired:
    """Write every undamaged record of `directory` to a new journal at `target`.

    `run` is needed if the file that names it (`generation.json`) is lost, too.

    Raises:
        RunBusyError: a live process has the journal open. JournalError: nothing can be read, or the
        target cannot be written.
    """
    lock = writer_lock.acquire(directory)
    copy = target.with_name(target.name + ".source")
    try:
        known = _known(directory, run)
        _copy(directory, data_folder(directory, known), copy)
        Journal.create(target, bytes.fromhex(known.run)).close(clean=True)
        lost: list[str] = []
        for table in Table:
            for way in _GROUP_BYTES:
                complete, found = _read_table(copy, directory, target, table, way)
                lost += [text for text in found if text not in lost]
                if complete:
                    break
        lost += _mend(target)
        with Journal.view(target) as view:
            kept = {table.name.lower(): view.count(table) for table in Table}
        return Repaired(kept, lost)
    finally:
        shutil.rmtree(copy, ignore_errors=True)
        lock.release()


def _known(directory: Path, run: bytes | None) -> GenerationFile:
    """Return the content of `generation.json`, or a substitute if it is lost."""
    try:
        return read_generation(directory)
    except JournalFormatError:
        if run is None or (directory / GENERATION_FILE).exists():
            raise  # of a newer version
    except JournalDamagedError:
        if run is None:
            raise
    # Of two data files, the older one is complete: it is removed after the newer one counts.
    folders = sorted(directory.glob("compact-*"), key=lambda path: compact_number(path.name))
    names = ["", *(path.name for path in folders)]
    data = next((name for name in names if (directory / name / DATA_FILE).exists()), "")
    return GenerationFile(run.hex(), FORMAT, 0, data=data)


def _copy(directory: Path, folder: Path, copy: Path) -> None:
    copy.mkdir(mode=0o700, parents=True)
    try:
        shutil.copyfile(folder / DATA_FILE, copy / DATA_FILE)
    except OSError as error:
        raise JournalError(str(directory), "reading", f"{DATA_FILE}: {error.strerror}") from error
    need_bytes = max(meta.size_bytes for meta in meta_pages(copy))
    have_bytes = (copy / DATA_FILE).stat().st_size
    if have_bytes < need_bytes <= max(4 * have_bytes, 1 << 30):  # else the number is damaged
        os.truncate(copy / DATA_FILE, need_bytes)


def _read_table(
    copy: Path, directory: Path, target: Path, table: Table, way: str
) -> tuple[bool, list[str]]:
    """Return whether the child reached the end of the table, and which records are damaged."""
    where = [str(copy), str(directory), str(target), table.name, way]
    done = subprocess.run(  # noqa: S603 - our own interpreter and code
        [sys.executable, "-P", "-c", _CHILD, _PACKAGE_PARENT, *where],
        capture_output=True,
        check=False,
        encoding="utf-8",
        errors="replace",
        stdin=subprocess.DEVNULL,
    )
    name = table.name.lower()
    lines = [f"table {name}, {line}" for line in done.stdout.splitlines()]
    if done.returncode == 0:
        return True, lines
    return False, [*lines, f"table {name}: some pages cannot be read"]


def _mend(target: Path) -> list[str]:
    """Remove records that depend on lost ones; return which they were."""
    journal = Journal.open(target)
    try:
        lost = fit(journal)
        # Files of arguments that were never synced may be damaged.
        journal.commit([Put(Table.META, b"boot", b"repaired")])
    finally:
        journal.close(clean=True)
    return lost


# The functions below run in a child process.


def main(copy: str, directory: str, target: str, table_name: str, way: str) -> None:
    """Copy one table's undamaged records into the target; runs in the child."""
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    table = Table[table_name]
    store = open_copy(Path(copy), Path(directory))
    journal = Journal.open(Path(target))
    try:
        for group in _groups(store, table, way):
            journal.commit(group)
    finally:
        journal.close(clean=True)


def _groups(store: JournalStore, table: Table, way: str) -> Iterator[list[Change]]:
    group: list[Change] = []
    size_bytes = 0
    if store.tables[table] is None:
        return
    try:
        with store.begin() as txn:
            cursor = txn.cursor(store.tables[table])
            for view, value in cursor.iterprev() if way == "backward" else cursor.iternext():
                key = bytes(view)
                payload = _whole(store, table, key, value)
                if payload is None or (table is Table.META and key in OWN_KEYS):
                    continue
                group.append(Put(table, key, payload))
                size_bytes += len(payload) + len(key)
                if size_bytes >= _GROUP_BYTES[way]:
                    yield group
                    group, size_bytes = [], 0
    except lmdb.Error:
        yield group
        raise
    yield group


def _whole(store: JournalStore, table: Table, key: bytes, value: memoryview) -> bytes | None:
    try:
        flags, payload = unseal(table, key, value)
        return store.blobs.read(unpack_ref(payload)) if flags & BLOB else payload
    except (EnvelopeError, BlobError, ValueError) as error:
        print(f"key {key.hex()}: {error}", flush=True)  # noqa: T201 - to the parent
        return None
