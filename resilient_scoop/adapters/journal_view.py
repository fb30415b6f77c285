"""A journal as others read it: `status`, `top`, the dashboard, the reports.

A view costs the broker nothing (LMDB's readers take no locks that a writer waits for). It works on
a run that is live, on one that is dead, and on a folder that may only be read: LMDB needs a lock
file even to read, so there a private copy is read. A dead journal is looked at first, because
damage would end the process that reads it: a small one as bytes, a large one that was not closed in
order in a child.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final, Self

from resilient_scoop.adapters import journal_lock
from resilient_scoop.adapters.journal_check import (
    SMALL_BYTES_MAX,
    Depth,
    Verdict,
    check,
    check_here,
)
from resilient_scoop.adapters.journal_lock import Holder
from resilient_scoop.adapters.journal_place import (
    DATA_FILE,
    DataMeta,
    Generation,
    check_place,
    check_sequence,
    read_generation,
    read_meta,
)
from resilient_scoop.adapters.journal_store import Reader, Store, open_copy, open_store
from resilient_scoop.core.events import Table
from resilient_scoop.errors import JournalDamagedError, JournalFormatError

_COPIES_MAX: Final = 3
"""A copy taken while the broker commits may not fit together; then another is taken."""


class JournalView(Reader):
    """A journal that is open for reading; close it, or use it in a `with` statement."""

    def __init__(self, directory: Path, store: Store, known: Generation) -> None:
        super().__init__(store, directory)
        self.run = bytes.fromhex(known.run)
        self.generation = known.generation
        self._closed = False

    @classmethod
    def open(cls, directory: Path) -> Self:
        """Open a journal to read it.

        Raises:
            JournalFormatError: no journal is here, or one of another format.
            JournalPlaceError: the folder is not the user's own.
            JournalDamagedError: what is stored is not what was written.
        """
        if not directory.is_dir():
            raise JournalFormatError(str(directory), "there is no such directory")
        check_place(directory, allow_network=True)  # reading is safe there; writing was refused
        known = read_generation(directory)
        meta = read_meta(directory)
        if not os.access(directory, os.W_OK):
            return cls(directory, _copied(directory), known)
        live = journal_lock.holder(directory) is not None
        if not live:
            _examine(directory, meta, clean=known.closed_txn == meta.txn)
        view = cls(directory, open_store(directory, readonly=True), known)
        if view.get(Table.META, b"run") != view.run:
            view.close()
            raise JournalDamagedError(str(directory), f"{DATA_FILE} holds another run or none")
        return view

    def holder(self) -> Holder | None:
        """Return the process that has the journal open for writing, None if the run is dead."""
        return journal_lock.holder(self.directory)

    def close(self) -> None:
        """Leave the journal; a second call does nothing."""
        if not self._closed:
            self._closed = True
            self.store.leave()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _examine(directory: Path, meta: DataMeta, *, clean: bool) -> None:
    """Look at a journal that nobody holds before LMDB maps it into this process."""
    check_sequence(directory, meta)
    if meta.size_bytes <= SMALL_BYTES_MAX:
        check_here(directory)
    elif not clean:
        check(directory, Depth.RECORDS).raise_if_damaged(directory)


def _copied(directory: Path) -> Store:
    import shutil
    import tempfile

    copy = Path(tempfile.mkdtemp(prefix="rscoop-view-"))
    try:
        verdict = Verdict([])
        for _ in range(_COPIES_MAX):
            shutil.copyfile(directory / DATA_FILE, copy / DATA_FILE)
            verdict = check(copy, Depth.STRUCTURE, blobs=directory)
            if verdict.sound:
                break
        verdict.raise_if_damaged(directory)
        return open_copy(copy, directory)
    finally:
        shutil.rmtree(copy)  # the map keeps the data until the view is closed
