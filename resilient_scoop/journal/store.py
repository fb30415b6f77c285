"""An open LMDB environment with our tables, and how they are read.

LMDB allows one open environment per file and process, so all users of one file in a process share a
`JournalStore`; the last user closes it. A read is one short transaction (a long one prevents the reuse of
every page that is replaced since). The map may be moved only while there are no readers: readers
hold `JournalStore.reading` during their transaction, and so does code that grows the map, or replaces the
environment (a compaction).

Tables that an older version did not know are missing in its journals: they read as empty, and are
created when the journal is opened for writing.
"""

from __future__ import annotations

import errno
import mmap
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple, NoReturn

import lmdb

from resilient_scoop.adapters.free_space import NO_SPACE
from resilient_scoop.core.events import Table
from resilient_scoop.errors import JournalDamagedError, JournalError, JournalFullError
from resilient_scoop.journal.blobs import BlobError, BlobStore, unpack_ref
from resilient_scoop.journal.envelope import BLOB, EnvelopeError, unseal
from resilient_scoop.journal.place import BLOB_FOLDER, DATA_FILE

MAP_BYTES: Final = 1 << 30
"""Address space, not disk; doubled whenever it is full."""
MAP_BYTES_MIN: Final = 16 << 20
REFS: Final = b"blob"
"""Table of our own: digest + table + key of each record that names a file -> nothing."""
FILES: Final = b"file"
"""Table of our own: id + table + key of each record that names a large result -> nothing."""
_OWN_TABLES: Final = 2
_META_PAGES: Final = 2
_FIRST_FORMAT_LAST: Final = Table.EVENT
"""The last table that every journal has; None represents a later one that is missing."""
_SHORT_BYTES: Final = 64 << 20
"""Free space below which a write may have failed; other processes may have freed some since."""
_READERS_MAX: Final = 512
_SCAN_BYTES: Final = 4 << 20

# Errors of LMDB for invalid pages, in contrast to errors of the disk or the caller.
_DAMAGE: Final = (
    lmdb.CorruptedError,
    lmdb.PageNotFoundError,
    lmdb.InvalidError,
    lmdb.VersionMismatchError,
    lmdb.IncompatibleError,
    lmdb.CursorFullError,
    lmdb.NotFoundError,
)


class _Stored(NamedTuple):
    key: bytes
    flags: int
    payload: bytes


class JournalStore:
    """The environment and its tables; `directory` is the folder of its data file."""

    def __init__(self, directory: Path, env: lmdb.Environment, blobs: BlobStore) -> None:
        self.directory = directory
        self.env = env
        self.blobs = blobs
        self.reading = threading.Lock()
        self.pid = os.getpid()
        self.users = 1
        self.id = (0, 0)  # of the data file, after it is open to others
        create = not env.flags()["readonly"]
        self.refs = env.open_db(REFS, create=create)
        self.files = _open_table(env, FILES, create=create)
        self.tables = {
            table: _open_table(env, table.name.lower().encode(), create=create)
            if table > _FIRST_FORMAT_LAST
            else env.open_db(table.name.lower().encode(), create=create)
            for table in Table
        }

    def leave(self) -> None:
        """Close the environment if there is no other user in this process."""
        with _opening:
            self.users -= 1
            if self.users > 0 or self.pid != os.getpid():
                return
            if _OPEN.get(self.id) is self:
                del _OPEN[self.id]
            self.env.close()

    def begin(self) -> lmdb.Transaction[memoryview]:
        """Start a read; another process may have grown the map since the last one."""
        try:
            return self.env.begin(buffers=True)
        except lmdb.MapResizedError:
            self.env.set_mapsize(0)
            return self.env.begin(buffers=True)


_OPEN: Final[dict[tuple[int, int], JournalStore]] = {}
_opening: Final = threading.Lock()


def open_store(
    directory: Path, folder: Path, *, readonly: bool = False, create: bool = False
) -> JournalStore:
    """Open a journal's environment in `folder`, or share the one that this process has open.

    Raises:
        JournalError: LMDB or the system refused; JournalDamagedError if the file is invalid.
    """
    with _opening:
        file_id = _file_id(folder)  # its name is never reused for another file
        store = None if file_id is None else _OPEN.get(file_id)
        if store is not None and store.pid == os.getpid():
            if not readonly:
                raise JournalError(str(directory), "opening", "this process has already opened it")
            store.users += 1
            return store
        try:
            env = _open_env(folder, readonly=readonly, create=create)
            store = JournalStore(folder, env, BlobStore(directory / BLOB_FOLDER))
        except lmdb.Error as error:
            translate(directory, "opening", error)
        store.id = file_id or _file_id(folder) or (0, 0)
        _OPEN[store.id] = store
        return store


class PageUse(NamedTuple):
    """How the pages of a data file are used; free ones are reused before it grows."""

    pages: int
    free: int
    page_bytes: int

    @property
    def size_bytes(self) -> int:
        """Return the size of the file."""
        return self.pages * self.page_bytes


def page_use(store: JournalStore, txn: lmdb.Transaction[memoryview]) -> PageUse:
    """Return how the pages are used, from counters only."""
    whole = store.env.stat()
    handles = [store.refs, store.files, *store.tables.values()]
    used = sum(table_use(txn, handle).pages for handle in handles)
    pages = store.env.info()["last_pgno"] + 1
    free = max(0, pages - used - _pages_of(whole) - _META_PAGES)
    return PageUse(pages, free, whole["psize"])


class TableUse(NamedTuple):
    """What a table holds."""

    records: int
    pages: int


def table_use(txn: lmdb.Transaction[memoryview], handle: Any) -> TableUse:
    """Return what a table holds, without reading its records; nothing if the file lacks it."""
    if handle is None:
        return TableUse(0, 0)
    found = txn.stat(handle)
    return TableUse(found["entries"], _pages_of(found))


def _pages_of(found: Any) -> int:
    """Return how many pages LMDB counts for a table, or for the list of tables."""
    return int(found["branch_pages"] + found["leaf_pages"] + found["overflow_pages"])


def open_copy(copy: Path, directory: Path) -> JournalStore:
    """Open a private copy of a data file; files of large payloads stay in the original folder."""
    try:
        env = _open_env(copy, readonly=True, lock=False)
        return JournalStore(copy, env, BlobStore(directory / BLOB_FOLDER))
    except lmdb.Error as error:
        translate(directory, "opening", error)


def translate(directory: Path, what: str, error: lmdb.Error) -> NoReturn:
    """Raise the error of our tree for an error of LMDB."""
    if isinstance(error, _DAMAGE):
        raise JournalDamagedError(str(directory), str(error)) from error
    code = getattr(error, "code", 0)
    # LMDB reports a short write as EIO. The write is repeated with all its pages, so nothing is
    # lost.
    if code in NO_SPACE or (code == errno.EIO and _free_bytes(directory) < _SHORT_BYTES):
        raise JournalFullError(str(directory), what, str(error)) from error
    raise JournalError(str(directory), what, str(error)) from error


def _free_bytes(directory: Path) -> int:
    try:
        found = os.statvfs(directory)
    except OSError:
        return _SHORT_BYTES  # the file or the disk is gone: this is not a lack of space
    return found.f_bavail * found.f_frsize


def _file_id(folder: Path) -> tuple[int, int] | None:
    try:
        status = (folder / DATA_FILE).stat()
    except FileNotFoundError:
        return None
    return (status.st_dev, status.st_ino)


def _open_table(env: lmdb.Environment, name: bytes, *, create: bool) -> Any:
    try:
        return env.open_db(name, create=create)
    except lmdb.NotFoundError:
        return None


def _open_env(
    directory: Path, *, readonly: bool, create: bool = False, lock: bool = True
) -> lmdb.Environment:
    map_bytes = MAP_BYTES
    while map_bytes < 2 * _data_bytes(directory):
        map_bytes *= 2
    least = max(MAP_BYTES_MIN, _data_bytes(directory))
    # With a limit of address space (ulimit -v), at most half of what is free: threads need the rest.
    while map_bytes // 2 >= least and not has_room(2 * map_bytes):
        map_bytes //= 2
    while True:
        try:
            return lmdb.open(
                os.fsencode(directory),
                map_size=map_bytes,
                readonly=readonly,
                create=create,
                lock=lock,
                mode=0o600,
                max_dbs=len(Table) + _OWN_TABLES,
                max_readers=_READERS_MAX,
                max_spare_txns=2,
                lib_version=0,  # else an environment variable could choose the file format
            )
        except lmdb.MemoryError:
            if map_bytes // 2 < least:
                raise
            map_bytes //= 2


def has_room(amount: int) -> bool:
    """Return whether so many bytes can be mapped: no limit of address space forbids it."""
    try:
        mmap.mmap(-1, amount, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ).close()
    except OSError:
        return False
    return True


def _data_bytes(directory: Path) -> int:
    try:
        return (directory / DATA_FILE).stat().st_size
    except FileNotFoundError:
        return 0


class JournalReader:
    """The common part of a journal and a view of one."""

    def __init__(self, store: JournalStore, directory: Path) -> None:
        self.store = store
        self.directory = directory

    def read(
        self,
        table: Table,
        prefix: bytes = b"",
        after: bytes | None = None,
        limit_bytes: int | None = None,
    ) -> list[tuple[bytes, bytes]]:
        """Return the records whose key begins with `prefix` and comes after `after`, in key order.

        With `limit_bytes`, it stops at the record that reaches the limit, so that a page holds at
        least one record if there is any: the last key is `after` for the next page.

        Raises:
            JournalDamagedError: a record is damaged; the text names its table and key.
        """
        stored = self._page(table, prefix, after, limit_bytes)
        found = []
        for record in stored:
            payload = record.payload
            if record.flags & BLOB:
                whole = self._blob(table, record)
                if whole is None:
                    continue
                payload = whole
            found.append((record.key, payload))
        return found

    def get(self, table: Table, key: bytes) -> bytes | None:
        """Return one record's value, or None.

        Raises:
            JournalDamagedError: the record is damaged.
        """
        record = self._one(table, key)
        if record is None or not record.flags & BLOB:
            return None if record is None else record.payload
        return self._blob(table, record)

    def scan(self, table: Table) -> Iterator[tuple[bytes, bytes]]:
        """Yield every record in key order, page by page: changes during the scan may be included or not."""
        after = None
        while page := self._page(table, b"", after, _SCAN_BYTES):
            after = page[-1].key
            for record in page:
                payload = self._blob(table, record) if record.flags & BLOB else record.payload
                if payload is not None:
                    yield record.key, payload

    @contextmanager
    def reading(self) -> Iterator[tuple[JournalStore, lmdb.Transaction[memoryview]]]:
        """Yield one moment of the journal, for a short read."""
        while True:
            store = self._current()
            with store.reading:
                if store is self.store:  # else another one replaced it before we had the lock
                    with store.begin() as txn:
                        yield store, txn
                    return

    def _current(self) -> JournalStore:
        """Return the store to read now."""
        return self.store

    def size_bytes(self) -> int:
        """Return the size of the journal on disk, including files of large payloads."""
        with self.reading() as (store, txn):
            return page_use(store, txn).size_bytes + store.blobs.size_bytes()

    def count(self, table: Table) -> int:
        """Return the number of records of a table, without reading them."""
        try:
            with self.reading() as (store, txn):
                return table_use(txn, store.tables[table]).records
        except lmdb.Error as error:
            translate(self.directory, "reading", error)

    def names_file(self, file_id: bytes) -> bool:
        """Return whether a record names the file of a large result (`result_files`)."""
        try:
            with self.reading() as (store, txn):
                if store.files is None:
                    return False
                cursor = txn.cursor(store.files)
                return cursor.set_range(file_id) and cursor.key()[: len(file_id)] == file_id
        except lmdb.Error as error:
            translate(self.directory, "reading", error)

    def _page(
        self, table: Table, prefix: bytes, after: bytes | None, limit_bytes: int | None
    ) -> list[_Stored]:
        start = prefix if after is None else max(prefix, after + b"\0")
        found: list[_Stored] = []
        taken_bytes = 0
        try:
            with self.reading() as (store, txn):
                handle = store.tables[table]
                if handle is None:
                    return found
                cursor = txn.cursor(handle)
                if not (cursor.set_range(start) if start else cursor.first()):
                    return found
                for view, value in cursor.iternext():
                    key = bytes(view)
                    if not key.startswith(prefix):
                        break
                    record = self._open(table, key, value)
                    found.append(record)
                    taken_bytes += _weight(record)
                    if limit_bytes is not None and taken_bytes >= limit_bytes:
                        break
        except lmdb.Error as error:
            translate(self.directory, f"reading table {table.name.lower()}", error)
        return found

    def _one(self, table: Table, key: bytes) -> _Stored | None:
        try:
            with self.reading() as (store, txn):
                handle = store.tables[table]
                value = None if handle is None else txn.get(key, db=handle)
                return None if value is None else self._open(table, key, value)
        except lmdb.Error as error:
            translate(self.directory, f"reading table {table.name.lower()}", error)

    def _open(self, table: Table, key: bytes, value: memoryview) -> _Stored:
        try:
            flags, payload = unseal(table, key, value)
        except EnvelopeError as error:
            raise self._damaged(table, key, error) from error
        return _Stored(key, flags, payload)

    def _blob(self, table: Table, record: _Stored) -> bytes | None:
        """Return the payload of a file, or None if its record was erased since it was read."""
        try:
            return self.store.blobs.read(unpack_ref(record.payload))
        except (BlobError, ValueError) as error:
            if self._one(table, record.key) != record:
                return None
            raise self._damaged(table, record.key, error) from error

    def _damaged(self, table: Table, key: bytes, error: Exception) -> JournalDamagedError:
        return JournalDamagedError(str(self.directory), str(error), table.name.lower(), key)


def _weight(record: _Stored) -> int:
    if record.flags & BLOB:
        try:
            return unpack_ref(record.payload).size_bytes
        except ValueError:
            return len(record.payload)
    return len(record.payload)
