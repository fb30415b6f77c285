"""Compaction: a copy of the data file without its free pages takes its place, while the run goes on.

LMDB never gives pages back to the disk, so a journal stays as large as it ever was. A compaction
goes through these states, all driven by the thread that writes (`Compaction.advance`, between two
commits); what may be open to others is only ever a whole, synced data file:

  COPYING      A child process copies one moment of the data file to a folder of its own
               (`compact-N`), synced as it goes, and checks each record's checksum. Commits go on in
               the old file; what they touch is noted: keys, and prefixes that were erased.
  CATCHING UP  The child is done. The noted places are brought to what they are in the old file, a
               few milliseconds at a time; new commits are noted like those before.
  (swap)       Nothing is left to catch up with. `generation.json`, which names the folder of the
               data file, is replaced: one rename is the moment at which the new file counts. The
               old one is closed and removed.

C1  Until the rename is durable nothing is written to the new file that was not written to the old.
C2  Between the last step of catching up and the rename there is no commit.
C3  A folder that `generation.json` does not name is nothing: it is removed by whoever opens the
    journal for writing. So a process that is killed at any point leaves the one file or the other.
C4  Prefixes are caught up with before keys: a key that was put behind an erasure of its prefix is
    noted after it, so it is still to come.
C5  What is removed is never what `generation.json` names, nor the old file before the new name is
    durable.
C6  A failure before the rename gives the compaction up, changes nothing, and is tried again later.

The lock (`broker.lock`) belongs to the folder of the journal and is held throughout. Readers that
have the old file open keep what they have mapped; views follow (`journal_view`).
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from shutil import rmtree
from typing import Final

import lmdb

from resilient_scoop.adapters.journal_place import read_generation
from resilient_scoop.adapters.journal_store import Store, open_store
from resilient_scoop.adapters.journal_write import Gone, erase, name, unname
from resilient_scoop.core.events import Change, Erase, Table
from resilient_scoop.errors import JournalError

NOTED_MAX: Final = 1 << 20
"""Places noted while the child copies; beyond it (100 MB of memory) the compaction is given up."""
STEP_RECORDS: Final = 500
"""Caught up with between two commits: about 3 ms."""
_PACKAGE_PARENT: Final = str(Path(__file__).resolve().parents[2])
_CHILD: Final = (
    "import sys; sys.path.append(sys.argv[1]); "
    "from resilient_scoop.adapters.journal_copy import main; main(*sys.argv[2:])"
)


class GivenUpError(Exception):
    """The compaction cannot go on; the text says why. The journal is as it was."""


Place = tuple[Table, bytes]


@dataclass(slots=True)
class Compaction:
    """One compaction under way; used by the thread that writes, and by no other."""

    directory: Path
    old: Store
    folder: Path
    child: subprocess.Popen[bytes]
    new: Store | None = None
    keys: set[Place] = field(default_factory=set)
    prefixes: set[Place] = field(default_factory=set)
    news: int = 0  # places noted since the last step of catching up

    @classmethod
    def begin(cls, directory: Path, old: Store, folder: Path) -> Compaction:
        """Start the child; whatever is committed from now on must be noted.

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
        return cls(directory, old, folder, child)

    def note(self, changes: Sequence[Change], kept: Sequence[bytes]) -> None:
        """Remember what a commit has touched; `kept` are the keys that it put into HISTORY.

        Raises:
            GivenUpError: that is too much to be remembered.
        """
        for change in changes:
            if isinstance(change, Erase):
                self.prefixes.add((change.table, change.prefix))
            else:
                self.keys.add((change.table, change.key))
        self.keys.update((Table.HISTORY, key) for key in kept)
        self.news += len(changes) + len(kept)
        if len(self.keys) + len(self.prefixes) > NOTED_MAX:
            raise GivenUpError("the run writes faster than its journal can be copied")

    def advance(self) -> bool:
        """Do a few milliseconds of what is to be done; return whether the swap may follow.

        Raises:
            GivenUpError: it cannot go on.
        """
        if self.new is None:
            if self.child.poll() is None:
                return False
            self.new = self._take_copy()
        if not self.keys and not self.prefixes:
            return True
        self._catch_up(self.new)
        return not self.keys and not self.prefixes

    def give_up(self) -> None:
        """Leave nothing of it; the journal is as it was."""
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
        """Tell whether the new file may be the journal's already (the swap was cut short)."""
        try:
            return read_generation(self.directory).data == self.folder.name
        except JournalError:
            return True

    def _take_copy(self) -> Store:
        assert self.child.stdout is not None
        with self.child.stdout as out:
            said = out.read()
        if self.child.returncode != 0:
            raise GivenUpError(_end_text(self.child.returncode, said))
        try:
            return open_store(self.directory, self.folder)
        except JournalError as error:
            raise GivenUpError(error.reason) from error

    def _catch_up(self, new: Store) -> None:
        """Bring some of the noted places to what they are in the old file.

        As many as were noted since the last time and half as many more, so that it comes to an end.
        """
        most = max(STEP_RECORDS, self.news + self.news // 2)
        try:
            with self.old.begin() as source:  # its map is moved by this very thread only
                prefixes, keys = self._take_over(source, new, most)
        except lmdb.MapFullError:
            new.env.set_mapsize(2 * new.env.info()["map_size"])
            return
        except lmdb.Error as error:
            raise GivenUpError(str(error)) from error
        self.news = 0
        self.prefixes.difference_update(prefixes)
        self.keys.difference_update(keys)

    def _take_over(
        self, source: lmdb.Transaction[memoryview], new: Store, most: int
    ) -> tuple[list[Place], list[Place]]:
        """Commit a step to the new file; return the prefixes and the keys that are done (C4)."""
        prefixes: list[Place] = []
        with new.env.begin(write=True, buffers=True) as txn:
            for table, prefix in self.prefixes:
                if not erase(txn, new, Erase(table, prefix), Gone(), most=most):
                    return prefixes, []
                prefixes.append((table, prefix))
            keys = list(islice(self.keys, most))
            for table, key in keys:
                stored = source.get(key, db=self.old.tables[table])
                _take_key(txn, new, table, key, None if stored is None else bytes(stored))
        return prefixes, keys


def _take_key(
    txn: lmdb.Transaction[memoryview], new: Store, table: Table, key: bytes, stored: bytes | None
) -> None:
    handle = new.tables[table]
    before = txn.get(key, db=handle)
    if before is not None:
        unname(txn, new, table, key, bytes(before), Gone())
    if stored is None:
        txn.delete(key, db=handle)
        return
    txn.put(key, stored, db=handle)
    name(txn, new, table, key, stored)


def _end_text(code: int, said: bytes) -> str:
    if code < 0:
        return f"reading it killed the copier ({signal.Signals(-code).name}); see `journal verify`"
    text = said.decode(errors="replace").strip()
    return text or f"the copier ended with status {code}"
