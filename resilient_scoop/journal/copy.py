"""The child that copies a data file for a compaction, while its run continues.

It reads one moment of the file as any reader does, writes it without its free pages, in pieces that
are synced one by one with a pause as long as the sync took (a gigabyte of unwritten data would
delay the journal's own syncs for seconds), and checks each record's checksum in the copy: a damaged
copy never replaces a journal that could still be repaired. It dies with its parent. It reports an
error on standard output, and ends with a status that is not 0.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import resource
import signal
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

import lmdb

from resilient_scoop.adapters.synced_files import sync_folder
from resilient_scoop.core.events import Table
from resilient_scoop.errors import JournalError
from resilient_scoop.journal.envelope import EnvelopeError, unseal
from resilient_scoop.journal.place import DATA_FILE
from resilient_scoop.journal.store import JournalStore, open_copy, open_store

PIECE_BYTES: Final = 4 << 20
_PIPE_BYTES: Final = 1 << 20
_NICE: Final = 10
_PDEATHSIG: Final = 1


def main(directory: str, source: str, folder: str, parent: str) -> None:
    """Copy the data file in `source` to `folder`; runs in the child."""
    ctypes.CDLL(None).prctl(_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(parent):
        os._exit(1)
    os.nice(_NICE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # damage may abort it
    try:
        copy(open_store(Path(directory), Path(source), readonly=True), Path(folder) / DATA_FILE)
        check_copy(Path(folder), Path(directory))
        sync_folder(Path(folder))
        sync_folder(Path(directory))
    except (JournalError, EnvelopeError) as error:
        _refuse(getattr(error, "reason", str(error)))
    except (OSError, lmdb.Error) as error:
        _refuse(getattr(error, "strerror", None) or str(error))


def copy(store: JournalStore, path: Path) -> None:
    """Write a compact copy of one moment of a store; it is synced on return."""
    failed: list[lmdb.Error] = []
    reading, writing = os.pipe2(os.O_CLOEXEC)
    with suppress(OSError):  # the user has too many large pipes: keep the present size
        fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)

    def read() -> None:
        try:
            store.env.copyfd(writing, compact=True)
        except lmdb.Error as error:
            failed.append(error)
        finally:
            os.close(writing)

    thread = threading.Thread(target=read, name="copier", daemon=True)
    thread.start()
    fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    try:
        _write_gently(reading, fd)
        os.fsync(fd)
    finally:
        os.close(fd)
    thread.join()
    if failed:
        raise failed[0]


def check_copy(folder: Path, directory: Path) -> None:
    """Check the checksum of each record of a copy.

    Raises:
        EnvelopeError: one is damaged; the text names it.
    """
    store = open_copy(folder, directory)
    with store.env.begin(buffers=True) as txn:
        for table in Table:
            handle = store.tables[table]
            if handle is None:
                continue
            for key, value in txn.cursor(handle).iternext():
                try:
                    unseal(table, bytes(key), value)
                except EnvelopeError as error:
                    where = f"table {table.name.lower()}, key {bytes(key).hex()}"
                    raise EnvelopeError(f"{where}: {error}; see `journal verify`") from error
    store.env.close()


def _write_gently(reading: int, fd: int) -> None:
    unsynced = 0
    while data := os.read(reading, _PIPE_BYTES):
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(fd, rest) :]
        unsynced += len(data)
        if unsynced >= PIECE_BYTES:
            began = time.monotonic()
            os.fdatasync(fd)
            time.sleep(time.monotonic() - began)
            unsynced = 0


def _refuse(reason: str) -> None:
    sys.stdout.write(reason)
    sys.stdout.flush()
    os._exit(1)  # the copying thread may still be blocked
