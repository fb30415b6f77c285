"""Compaction: replace the data file by a copy without its free pages, while the run continues.

LMDB never returns pages to the disk, so a journal keeps its largest size. A compaction goes through
these states, driven by the writer thread (`Compaction.advance`, between two commits); other
processes only ever open a complete, synced data file:

  COPYING      A child process copies one moment of the data file to a folder of its own
               (`compact-N`), synced as it goes, and checks each record's checksum. Commits continue in
               the old file; what they touch is noted.
  CATCHING UP  The child is done. The noted places are brought to what they are in the old file, a
               few milliseconds at a time; new commits are noted like those before.
  (swap)       Nothing is left to catch up with. `generation.json`, which names the folder of the
               data file, is replaced: one rename is the moment at which the new file counts. The
               old one is closed and removed.

`core/compaction.py` decides what is noted, in which order it is copied, and when the swap may
follow, and has the invariants CO1 to CO6; this module handles LMDB, the disk and the child.

The lock (`broker.lock`) belongs to the folder of the journal and is held throughout. Readers with
the old file open keep their mapping; views switch to the new file (`journal.view`).
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from shutil import rmtree
from typing import Final

import lmdb

from resilient_scoop.core.compaction import Course, GivenUpError
from resilient_scoop.core.events import Change, Erase, Table
from resilient_scoop.errors import JournalError
from resilient_scoop.journal.place import read_generation
from resilient_scoop.journal.store import JournalStore, open_store
from resilient_scoop.journal.write import (
    Gone,
    erase,
    name,
    unname,
)

NOTED_MAX: Final = 1 << 20
"""Limit of places noted while the child copies (100 MB of memory); beyond it the compaction is given up."""
STEP_RECORDS: Final = 500
"""Places copied between two commits: about 3 ms."""
_PACKAGE_PARENT: Final = str(Path(__file__).resolve().parents[2])
_CHILD: Final = (
    "import sys; sys.path.append(sys.argv[1]); "
    "from resilient_scoop.journal.copy import main; main(*sys.argv[2:])"
)


@dataclass(slots=True)
class Compaction:
    """One running compaction; used only by the writer thread."""

    directory: Path
    old: JournalStore
    folder: Path
    child: subprocess.Popen[bytes]
    course: Course
    new: JournalStore | None = None

    @classmethod
    def begin(cls, directory: Path, old: JournalStore, folder: Path) -> Compaction:
        """Start the child; everything committed from now on must be noted.

        Raises:
            GivenUpError: the system has no room for a folder or a process.
        """
        try:
            folder.mkdir(mode=0o700)
            where = [str(directory), str(old.directory), str(folder), str(os.getpid())]
            child = subprocess.Popen(  # noqa: S603 - our own interpreter and code
                [sys.executable, "-P", "-c", _CHILD, _PACKAGE_PARENT, *where],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
        except OSError as error:
            with suppress(OSError):
                folder.rmdir()
            raise GivenUpError(str(error.strerror or error)) from error
        return cls(directory, old, folder, child, Course(NOTED_MAX, STEP_RECORDS))

    def note(self, changes: Sequence[Change], kept: Sequence[bytes]) -> None:
        """Note what a commit has touched; `kept` are the keys that it put into HISTORY.

        Raises:
            GivenUpError: this is too much.
        """
        self.course.note(changes, kept)

    def advance(self) -> bool:
        """Work for a few milliseconds; return whether the swap may follow.

        Raises:
            GivenUpError: it cannot continue.
        """
        if self.new is None:
            if self.child.poll() is None:
                return False
            self.new = self._take_copy()
            self.course.copied()
        if not self.course.may_swap:
            self._catch_up(self.new)
        return self.course.may_swap

    def give_up(self) -> None:
        """Remove everything of it; the journal is unchanged."""
        self.course.give_up()
        if self.child.poll() is None:
            self.child.kill()
        self.child.wait()
        if self.child.stdout is not None:
            self.child.stdout.close()
        if self.new is not None:
            self.new.leave()
            self.new = None
        if not self._may_count():
            rmtree(self.folder, ignore_errors=True)

    def _may_count(self) -> bool:
        """Return whether the new file may already be the journal's (the swap was cut short)."""
        try:
            return read_generation(self.directory).data == self.folder.name
        except JournalError:
            return True

    def _take_copy(self) -> JournalStore:
        assert self.child.stdout is not None
        with self.child.stdout as out:
            output = out.read()
        if self.child.returncode != 0:
            raise GivenUpError(_end_text(self.child.returncode, output))
        try:
            return open_store(self.directory, self.folder)
        except JournalError as error:
            raise GivenUpError(error.reason) from error

    def _catch_up(self, new: JournalStore) -> None:
        """Do a step; the new file gets all of it or nothing."""
        step = self.course.next_step()
        try:
            # Only this thread moves the map of the old file.
            with self.old.begin() as source, new.env.begin(write=True, buffers=True) as txn:
                prefixes = step.carry_out(_Old(self.old, source), _New(new, txn))
        except lmdb.MapFullError:
            new.env.set_mapsize(2 * new.env.info()["map_size"])
            return
        except lmdb.Error as error:
            raise GivenUpError(str(error)) from error
        self.course.done(step, prefixes)


@dataclass(frozen=True, slots=True)
class _Old:
    store: JournalStore
    txn: lmdb.Transaction[memoryview]

    def get(self, table: Table, key: bytes) -> bytes | None:
        stored = self.txn.get(key, db=self.store.tables[table])
        return None if stored is None else bytes(stored)


@dataclass(frozen=True, slots=True)
class _New:
    store: JournalStore
    txn: lmdb.Transaction[memoryview]

    def erase(self, table: Table, prefix: bytes, records_max: int) -> bool:
        return erase(self.txn, self.store, Erase(table, prefix), Gone(), most=records_max)

    def take(self, table: Table, key: bytes, stored: bytes | None) -> None:
        handle = self.store.tables[table]
        before = self.txn.get(key, db=handle)
        if before is not None:
            unname(self.txn, self.store, table, key, bytes(before), Gone())
        if stored is None:
            self.txn.delete(key, db=handle)
            return
        self.txn.put(key, stored, db=handle)
        name(self.txn, self.store, table, key, stored)


def _end_text(code: int, output: bytes) -> str:
    if code < 0:
        return f"reading it killed the copier ({signal.Signals(-code).name}); see `journal verify`"
    text = output.decode(errors="replace").strip()
    return text or f"the copier ended with status {code}"
