"""A view of a journal for readers: `status`, `attach`, reports, notebooks.

A view costs the broker nothing (LMDB's readers take no locks that a writer waits for). It works on
a live run, on an ended one, and on a read-only folder: LMDB needs a lock file even to read, so
there a private copy is read. The journal of an ended run is checked first, because damage would
kill the process that reads it: a small one as bytes, a large one that was not closed in order in a
child.

While a view is open, a compaction may replace its data file. The old file stays readable, but gets
no new records; so a view checks `generation.json` before each reading (2 us) and switches to the
new file.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final, Self

from resilient_scoop.core.events import Table
from resilient_scoop.errors import JournalDamagedError, JournalError, JournalFormatError
from resilient_scoop.journal import writer_lock
from resilient_scoop.journal.damage_check import (
    SMALL_BYTES_MAX,
    CheckResult,
    Depth,
    check,
    check_here,
)
from resilient_scoop.journal.place import (
    DATA_FILE,
    GENERATION_FILE,
    DataMeta,
    GenerationFile,
    check_place,
    check_sequence,
    data_folder,
    read_generation,
    read_meta,
)
from resilient_scoop.journal.store import (
    JournalReader,
    JournalStore,
    open_copy,
    open_store,
)
from resilient_scoop.journal.writer_lock import Holder

_COPIES_MAX: Final = 3
"""A copy made during a commit of the broker may be inconsistent; then another is made."""


class JournalView(JournalReader):
    """A journal that is open for reading; close it, or use it in a `with` statement."""

    def __init__(self, directory: Path, store: JournalStore, known: GenerationFile) -> None:
        super().__init__(store, directory)
        self.run = bytes.fromhex(known.run)
        self.generation = known.generation
        self._data = known.data
        self._stamp: tuple[int, int] | None = None
        self._closed = False

    @classmethod
    def open(cls, directory: Path) -> Self:
        """Open a journal to read it.

        Raises:
            JournalFormatError: no journal is here, or one of another format. JournalPlaceError: the
            folder is not the user's own. JournalDamagedError: stored data is not what was written.
        """
        if not directory.is_dir():
            raise JournalFormatError(str(directory), "there is no such directory")
        check_place(directory, allow_network=True)  # reading is safe there; writing was refused
        stamp = _stamp(directory)
        known = read_generation(directory)
        view = None
        while view is None:
            try:
                view = cls(directory, _opened(directory, known), known)
            except JournalError:
                before, known = known, read_generation(directory)
                if known.data == before.data:
                    raise
        view._stamp = stamp
        if view.get(Table.META, b"run") != view.run:
            view.close()
            raise JournalDamagedError(str(directory), f"{DATA_FILE} holds another run or none")
        return view

    def _current(self) -> JournalStore:
        """Return the store of the present data file."""
        stamp = _stamp(self.directory)
        if stamp != self._stamp and not self._closed:
            self._follow()
            self._stamp = stamp
        return self.store

    def _follow(self) -> None:
        while (known := read_generation(self.directory)).data != self._data:
            try:
                store = _opened(self.directory, known)
            except JournalError:
                if read_generation(self.directory).data == known.data:
                    raise
                continue
            old, self.store, self._data = self.store, store, known.data
            old.leave()

    def holder(self) -> Holder | None:
        """Return the process that has the journal open for writing; None if the run has ended."""
        return writer_lock.holder(self.directory)

    def close(self) -> None:
        """Close the view; a second call does nothing."""
        if not self._closed:
            self._closed = True
            self.store.leave()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _stamp(directory: Path) -> tuple[int, int] | None:
    """Return a stamp that changes whenever `generation.json` does; None if it does not exist."""
    try:
        found = (directory / GENERATION_FILE).stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns


def _opened(directory: Path, known: GenerationFile) -> JournalStore:
    folder = data_folder(directory, known)
    meta = read_meta(folder)
    if not os.access(directory, os.W_OK):
        return _copied(directory, folder)
    if writer_lock.holder(directory) is None:
        _examine(directory, folder, meta, clean=known.closed_txn == meta.txn and not meta.is_short)
    return open_store(directory, folder, readonly=True)


def _examine(directory: Path, folder: Path, meta: DataMeta, *, clean: bool) -> None:
    """Check a journal without a holder before LMDB maps it into this process.

    If pages at the end of the file are missing, a child reads it first: if one of them is in use,
    reading it kills the process.
    """
    check_sequence(folder, meta)
    if meta.size_bytes <= SMALL_BYTES_MAX:
        check_here(folder)
    elif not clean:
        check(directory, Depth.RECORDS, states=False).raise_if_damaged(directory)


def _copied(directory: Path, folder: Path) -> JournalStore:
    import shutil
    import tempfile

    copy = Path(tempfile.mkdtemp(prefix="rscoop-view-"))
    try:
        verdict = CheckResult([])
        for _ in range(_COPIES_MAX):
            shutil.copyfile(folder / DATA_FILE, copy / DATA_FILE)
            verdict = check(directory, Depth.STRUCTURE, data=copy, states=False)
            if verdict.sound:
                break
        verdict.raise_if_damaged(directory)
        return open_copy(copy, directory)
    finally:
        shutil.rmtree(copy)  # the map keeps the data until the view is closed
