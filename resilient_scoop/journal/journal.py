"""The journal of a run: the only state that outlives the broker.

Invariants:

- ONE-WRITER   a journal is open for writing in one process of this host (`journal.writer_lock`)
- ALL-OR-NONE  a commit is one synced LMDB transaction: after any crash it is there whole or not
- NO-MORE      after a commit error other than "no space", the object refuses further use: LMDB
               would continue after a failed fsync as if nothing had been lost
- NAMED-LAST   a record that names the file of a large payload is committed after the file is
               durable, and the file is removed after the commit that drops its last record;
               likewise the files of large results (`result_files`), which workers make
- SAME-RUN     run id and generation agree with the second file (`journal.place`)

LMDB runs with sync and metasync and without writemap: the only mode that lost nothing in power
cuts. `read`, `get` and `scan` may be called from another thread than `commit`. `tend`, called
between commits by the thread that commits, compacts the data file when half of it is free.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final, NoReturn, Self

import lmdb

from resilient_scoop.adapters.free_space import NO_SPACE
from resilient_scoop.adapters.synced_files import sync_folder
from resilient_scoop.core.compaction import GivenUpError
from resilient_scoop.core.events import Change, Erase, Put, Table
from resilient_scoop.errors import (
    InvariantError,
    JournalDamagedError,
    JournalError,
    JournalFormatError,
    JournalFullError,
    JournalGoneError,
)
from resilient_scoop.journal import result_files, writer_lock
from resilient_scoop.journal.damage_check import (
    SMALL_BYTES_MAX,
    Depth,
    check,
    check_here,
)
from resilient_scoop.journal.place import (
    DATA_FILE,
    FORMAT,
    GENERATION_FILE,
    GenerationFile,
    check_place,
    check_sequence,
    close_generation,
    data_folder,
    is_there,
    lengthen,
    read_generation,
    read_meta,
    remove_data,
    write_generation,
)
from resilient_scoop.journal.store import (
    JournalReader,
    JournalStore,
    has_room,
    open_store,
    translate,
)
from resilient_scoop.journal.upkeep import Upkeep
from resilient_scoop.journal.view import JournalView
from resilient_scoop.journal.write import (
    Gone,
    Puts,
    is_named,
    prepare,
    write,
)
from resilient_scoop.journal.writer_lock import JournalLock

RUN_KEY: Final = b"run"
FORMAT_KEY: Final = b"format"
GENERATION_KEY: Final = b"generation"
_BIRTH_KEYS: Final = (RUN_KEY, FORMAT_KEY, GENERATION_KEY)
_WHOLE_BYTES_MAX: Final = 64 << 20
"""For larger journals, the structure is checked only after a reboot: it takes 10 s per GB."""
_REAP_EVERY: Final = 1000
"""Commits between two checks for dead readers that still hold old pages."""


class Journal(JournalReader):
    """A journal that is open for writing."""

    def __init__(self, directory: Path, lock: JournalLock, store: JournalStore, run: bytes) -> None:
        super().__init__(store, directory)
        self.run = run
        self.generation = 0  # how often this journal was opened for writing, including this time
        self.keep_history = False  # dropped records go to HISTORY
        self.notes: deque[str] = deque()  # messages for the user; another thread may take them
        self.files = directory.parent / result_files.FOLDER
        self.data = ""  # folder of the data file
        self.upkeep = Upkeep(self)
        self._remover: threading.Thread | None = None
        self._lock = lock
        self._failed: JournalError | None = None
        self._closed = False
        self._commits = 0

    @classmethod
    def create(cls, directory: Path, run: bytes, *, allow_network: bool = False) -> Self:
        """Make the journal of a new run (16 bytes) in a new directory, mode 0700.

        A journal whose creation was cut short, and which is empty, is made again.

        Raises:
            JournalPlaceError: the directory is not safe for it. JournalFormatError: there is
            already one.
        """
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        check_place(directory, allow_network=allow_network)
        with ExitStack() as undo:
            lock = writer_lock.acquire(directory)
            undo.callback(lock.release)
            if (directory / GENERATION_FILE).exists():
                raise JournalFormatError(str(directory), "there is a journal already")
            self = cls(directory, lock, open_store(directory, directory, create=True), run)
            undo.callback(self.store.leave)
            self._check_unborn()
            self._begin()
            undo.pop_all()
        return self

    @classmethod
    def open(
        cls, directory: Path, *, run: bytes | None = None, allow_network: bool = False
    ) -> Self:
        """Open a journal for writing, as the next generation of its run.

        A journal that was closed in order is checked if it is small. Any other is verified, in a
        child process: after a reboot or up to 64 MiB completely, otherwise record by record.

        Raises:
            JournalFormatError: no journal is here, or one of another format or run.
            JournalPlaceError: the directory is not safe. RunBusyError: a live process has it open.
            JournalDamagedError: stored data is not what was written. JournalFullError: there is no
            space for the records of the opening.
        """
        if not directory.is_dir():
            raise JournalFormatError(str(directory), "there is no such directory")
        check_place(directory, allow_network=allow_network)
        try:
            return cls._take_up(directory, run)
        except OSError as error:
            if error.errno not in NO_SPACE:
                raise
            raise JournalFullError(str(directory), "opening", str(error.strerror)) from error

    @classmethod
    def _take_up(cls, directory: Path, run: bytes | None) -> Self:
        with ExitStack() as undo:
            lock = writer_lock.acquire(directory)
            undo.callback(lock.release)
            known = _examine(directory, lock, run)
            store = open_store(directory, data_folder(directory, known))
            self = cls(directory, lock, store, bytes.fromhex(known.run))
            self.data = known.data
            undo.callback(self.store.leave)
            self._continue(known)
            undo.pop_all()
        return self

    @classmethod
    def view(cls, directory: Path) -> JournalView:
        """Open a journal to read it, while the broker writes or after the run has ended."""
        return JournalView.open(directory)

    def commit(self, changes: Sequence[Change]) -> None:
        """Write all `changes`, in order, or nothing; durable on return.

        Raises:
            JournalFullError: no space. Nothing was written; the journal stays usable. JournalError:
            any other error. The journal refuses further use: open it again. ValueError: a key is
            empty or longer than `KEY_BYTES_MAX`. Nothing was written.
        """
        self._check_usable()
        try:
            steps = prepare(self.store, changes)
        except OSError as error:
            self._fail_file(error)
        gone = self._write(steps)
        self.upkeep.note(changes, gone.kept)
        for digest in gone.blobs:
            self.store.blobs.remove(digest)
        for file_id in gone.files:
            result_files.remove(self.files, file_id)
        self._commits += 1
        if self._commits % _REAP_EVERY == 0:
            self.store.env.reader_check()

    def close(self, clean: bool) -> None:  # noqa: FBT001 - the one thing there is to say
        """Close; `clean` records that there was no error, so that the next opening need not verify."""
        if self._closed:
            return
        self._closed = True
        self.upkeep.close()
        self._await_remover()
        txn = self.store.env.info()["last_txnid"]
        self.store.leave()
        if clean and self._failed is None:
            close_generation(self.directory, self._known(self.data, txn))
        self._lock.release()

    def sweep_files(self) -> int:
        """Remove files of large results that no record names; return how many.

        Only while no worker of this run is running; recent files are kept nevertheless.
        """
        return result_files.sweep(self.files, self.names_file, all_ages=False)

    def tend(self) -> float:
        """Do upkeep for some milliseconds; return in how many seconds to call again.

        Raises:
            JournalGoneError: the data file was deleted or moved.
            JournalError: the journal refuses further use.
        """
        self._check_usable()
        self._check_there()
        return self.upkeep.tend()

    def compact(self) -> None:
        """Compact now and return when it is done; for a journal without other writers.

        Raises:
            JournalError: it failed, with the reason; the journal is unchanged.
        """
        self._check_usable()
        self.upkeep.compact()
        self._await_remover()

    def take_place(self, new: JournalStore, folder: str) -> None:
        """Replace the open data file by another one; the old one is removed.

        Raises:
            GivenUpError: the disk refused, and nothing has changed. JournalError: the disk refused,
            and it is unknown which file counts.
        """
        try:
            write_generation(self.directory, self._known(folder))
        except OSError as error:
            if self._is_uncertain(folder):
                reason = f"{GENERATION_FILE}: {error.strerror}"
                self._failed = JournalError(str(self.directory), "a compaction", reason)
                raise self._failed from error
            raise GivenUpError(str(error.strerror)) from error
        old = self.store
        with old.reading:
            self.store = new
        self.data = folder
        self._remover = threading.Thread(target=self._remove, args=(old, folder), name="remover")
        self._remover.start()

    def _remove(self, old: JournalStore, folder: str) -> None:
        """Remove the old data file: for a gigabyte this takes the kernel about 200 ms."""
        old.leave()
        remove_data(self.directory, folder, newer=False)

    def _await_remover(self) -> None:
        if self._remover is not None:
            self._remover.join()
            self._remover = None

    def _is_uncertain(self, folder: str) -> bool:
        """Return whether the new file may be the current one, although its rename may not be durable."""
        try:
            return read_generation(self.directory).data == folder
        except JournalError:
            return True

    def _check_unborn(self) -> None:
        """Refuse to create a journal over records whose `generation.json` is missing."""
        used = [table for table in Table if table is not Table.META and self.count(table)]
        if used or any(key not in _BIRTH_KEYS for key, _ in self.scan(Table.META)):
            reason = f"there is a journal already, but no {GENERATION_FILE}; restore that file"
            raise JournalFormatError(str(self.directory), reason)

    def _begin(self) -> None:
        self.commit(
            [Put(Table.META, RUN_KEY, self.run), Put(Table.META, FORMAT_KEY, bytes((FORMAT,)))]
        )
        self._next_generation(0)
        sync_folder(self.directory.parent)

    def _continue(self, known: GenerationFile) -> None:
        run = self.get(Table.META, RUN_KEY)
        if run != self.run:
            found = "no run at all" if run is None else f"run {run.hex()}"
            reason = f"{DATA_FILE} holds {found}, {GENERATION_FILE} says run {known.run}"
            raise JournalDamagedError(str(self.directory), reason)
        stored = int.from_bytes(self.get(Table.META, GENERATION_KEY) or b"", "big")
        if stored < known.generation:
            reason = (
                f"{DATA_FILE} is of generation {stored}, {GENERATION_FILE} of {known.generation}: "
                f"an older copy was put in its place"
            )
            raise JournalDamagedError(str(self.directory), reason)
        self.store.env.reader_check()
        self._next_generation(stored)
        remove_data(self.directory, self.data)
        self.store.blobs.sweep(lambda digest: is_named(self.store, digest))

    def _next_generation(self, stored: int) -> None:
        self.generation = stored + 1
        self.commit([Put(Table.META, GENERATION_KEY, self.generation.to_bytes(8, "big"))])
        write_generation(self.directory, self._known(self.data))

    def _known(self, data: str, closed_txn: int = 0) -> GenerationFile:
        return GenerationFile(self.run.hex(), FORMAT, self.generation, closed_txn, data)

    def _check_there(self) -> None:
        """Refuse to continue with a data file that has been removed: commits to it would succeed."""
        if not is_there(self.directory, self._known(self.data), self.store.id):
            self._failed = JournalGoneError(str(self.directory))
            raise self._failed

    def _check_usable(self) -> None:
        if self._failed is not None:
            raise self._failed
        if self._closed:
            raise InvariantError(f"commit to the closed journal {self.directory}")
        if self.store.pid != os.getpid():
            raise InvariantError(f"commit to {self.directory} from a forked child")

    def _write(self, steps: Sequence[Puts | Erase]) -> Gone:
        while True:
            try:
                return write(self.store, steps, keep_history=self.keep_history)
            except lmdb.MapFullError:
                self._grow()
            except lmdb.Error as error:
                self._fail(error)

    def _grow(self) -> None:
        """Double the map. LMDB closes the environment if that fails, so it is tested before."""
        map_bytes: int = self.store.env.info()["map_size"]
        if not has_room(map_bytes):
            reason = f"no address space for a map of {2 * map_bytes} bytes (see `ulimit -v`)"
            raise JournalFullError(str(self.directory), "a commit", reason)
        with self.store.reading:
            try:
                self.store.env.set_mapsize(2 * map_bytes)
            except lmdb.Error as error:
                self._fail(error)

    def _fail(self, error: lmdb.Error) -> NoReturn:
        try:
            translate(self.directory, "a commit", error)
        except JournalError as translated:
            if not isinstance(translated, JournalFullError):
                self._failed = translated
            raise

    def _fail_file(self, error: OSError) -> NoReturn:
        what, reason = "a file of a large payload", str(error.strerror)
        if error.errno in NO_SPACE:
            raise JournalFullError(str(self.directory), what, reason) from error
        self._failed = JournalError(str(self.directory), what, reason)
        raise self._failed from error


def _examine(directory: Path, lock: JournalLock, run: bytes | None) -> GenerationFile:
    """Check a journal before LMDB opens it, in a child if the check could kill the process."""
    known = read_generation(directory)
    if run is not None and run.hex() != known.run:
        reason = f"it belongs to run {known.run}, not to {run.hex()}"
        raise JournalFormatError(str(directory), reason)
    folder = data_folder(directory, known)
    meta = read_meta(folder)
    check_sequence(folder, meta)
    if known.closed_txn and known.closed_txn == meta.txn and not meta.is_short:
        if meta.size_bytes <= SMALL_BYTES_MAX:
            check_here(folder)
        return known
    rebooted = lock.previous is None or lock.previous.boot_id != writer_lock.boot_id()
    whole = rebooted or meta.size_bytes <= _WHOLE_BYTES_MAX
    depth = Depth.STRUCTURE if whole else Depth.RECORDS
    check(directory, depth, states=False).raise_if_damaged(directory)
    if meta.is_short:  # only unused pages are missing; a writer needs them
        try:
            lengthen(folder, meta)
        except OSError as error:
            raise JournalFullError(str(directory), "opening", str(error.strerror)) from error
    return known
