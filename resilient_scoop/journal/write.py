"""How changes become one LMDB transaction.

`prepare` seals the values and makes large payloads durable as files; it changes nothing that a
reader sees. `write` is the transaction, and can be repeated if it fails. The order of changes is
kept within a table: puts after an erasure stay.

Two tables record which record names which file, so that a file can be removed with the last record
that names it: REFS for the journal's own files (content-addressed, made and removed by this
thread), FILES for those of large results (`result_files`). Overwriting a record without erasing it
first would leave the entries of the old record: erase a record before you replace it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Final

import lmdb

from resilient_scoop.core.events import Change, Erase, Table
from resilient_scoop.journal import result_files
from resilient_scoop.journal.blobs import BLOB_BYTES_MIN, BlobError, unpack_ref
from resilient_scoop.journal.envelope import (
    BLOB,
    OVERHEAD_BYTES,
    EnvelopeError,
    flags_of,
    seal,
    unseal,
)
from resilient_scoop.journal.store import JournalStore

KEY_BYTES_MAX: Final = 470
"""LMDB's limit of 511, less the prefix of a key in the table of files."""
KEPT_TABLES: Final = (Table.LOG,)
"""Tables whose dropped records `--keep-history` keeps."""
_DIGEST_BYTES: Final = 32


@dataclass(slots=True)
class Puts:
    """Consecutive sealed puts into one table, with the names of their files."""

    table: Table
    records: list[tuple[bytes, bytes]] = field(default_factory=list)
    refs: list[bytes] = field(default_factory=list)
    files: list[bytes] = field(default_factory=list)


@dataclass(slots=True)
class Gone:
    """Files that no record names any more: digests of the journal's files, ids of results' files.

    `kept` are the keys of records that went to HISTORY.
    """

    blobs: set[bytes] = field(default_factory=set)
    files: set[bytes] = field(default_factory=set)
    kept: list[bytes] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.blobs or self.files)


def prepare(store: JournalStore, changes: Sequence[Change]) -> list[Puts | Erase]:
    """Return the steps of a transaction.

    Raises:
        OSError: the file of a large payload could not be written.
        ValueError: a key is empty or too long.
    """
    steps: list[Puts | Erase] = []
    current: dict[Table, Puts] = {}
    erased = {(c.table, c.prefix): at for at, c in enumerate(changes) if isinstance(c, Erase)}
    for at, change in enumerate(changes):
        table = change.table
        if isinstance(change, Erase):
            current.pop(table, None)
            steps.append(change)
            continue
        key, value = change.key, change.value
        if not 0 < len(key) <= KEY_BYTES_MAX:
            raise ValueError(f"a key of {len(key)} bytes, not 1 to {KEY_BYTES_MAX}")
        if erased and erased.get((table, key), -1) > at:
            continue  # erased again within this transaction: need not be written
        puts = current.get(table)
        if puts is None:
            puts = current[table] = Puts(table)
            steps.append(puts)
        if len(value) > BLOB_BYTES_MIN:
            _put_file(store, puts, key, value)
        else:
            puts.records.append((key, seal(table, key, value)))
        for file_id in result_files.ids_in(value):
            puts.files.append(_ref(file_id, table, key))
    _finish(store, steps)
    return steps


def write(
    store: JournalStore, steps: Sequence[Puts | Erase], *, keep_history: bool = False
) -> Gone:
    """Commit the steps; return the files that no record names any more."""
    gone = Gone()
    with store.env.begin(write=True, buffers=True) as txn:
        for step in steps:
            if isinstance(step, Erase):
                keep = keep_history and step.table in KEPT_TABLES
                erase(txn, store, step, gone, keep=keep)
                continue
            txn.cursor(store.tables[step.table]).putmulti(step.records)
            for ref in step.refs:
                txn.put(ref, b"", db=store.refs)
            for ref in step.files:
                txn.put(ref, b"", db=store.files)
        return _left(txn, store, gone)


def is_named(store: JournalStore, digest: bytes) -> bool:
    """Return whether a record names the journal's file of this digest."""
    with store.reading, store.begin() as txn:
        return _begins(txn.cursor(store.refs), digest)


def _put_file(store: JournalStore, puts: Puts, key: bytes, value: bytes) -> None:
    name = store.blobs.write(value)
    puts.records.append((key, seal(puts.table, key, name.pack(), BLOB)))
    puts.refs.append(_ref(name.digest, puts.table, key))


def _finish(store: JournalStore, steps: Sequence[Puts | Erase]) -> None:
    files = False
    for step in steps:
        if isinstance(step, Puts):
            files = files or bool(step.refs)
            step.records.sort(key=itemgetter(0))  # stable: for one key, the last put counts
    if files:
        store.blobs.sync_names()


def erase(
    txn: lmdb.Transaction[memoryview],
    store: JournalStore,
    step: Erase,
    gone: Gone,
    *,
    keep: bool = False,
    most: int = 1 << 62,
) -> bool:
    """Delete by prefix, up to a number of records; return whether all are deleted.

    With `keep`, the records move to HISTORY, and name their files from there.
    """
    prefix, length = step.prefix, len(step.prefix)
    watch = keep or txn.stat(store.refs)["entries"] or txn.stat(store.files)["entries"]
    cursor = txn.cursor(store.tables[step.table])
    found = cursor.set_range(prefix) if prefix else cursor.first()
    while found:
        key, value = cursor.item()
        if key[:length] != prefix:
            break
        if most <= 0:
            return False
        most -= 1
        if watch:
            whole_key, stored = bytes(key), bytes(value)
            unname(txn, store, step.table, whole_key, stored, gone)
            if keep:
                _keep(txn, store, step.table, whole_key, stored)
                gone.kept.append(bytes((step.table,)) + whole_key)
        found = cursor.delete() and bool(cursor.key())  # the cursor is on the next record now
    return True


def name(
    txn: lmdb.Transaction[memoryview], store: JournalStore, table: Table, key: bytes, stored: bytes
) -> None:
    """Add the files that a stored record names."""
    digest, ids = _named_by(store, table, key, stored)
    if digest is not None:
        txn.put(_ref(digest, table, key), b"", db=store.refs)
    for file_id in ids:
        txn.put(_ref(file_id, table, key), b"", db=store.files)


def unname(
    txn: lmdb.Transaction[memoryview],
    store: JournalStore,
    table: Table,
    key: bytes,
    stored: bytes,
    gone: Gone,
) -> None:
    """Remove the entries of the files that a stored record names."""
    deep = txn.stat(store.files)["entries"] > 0
    digest, ids = _named_by(store, table, key, stored, deep=deep)
    if digest is not None:
        txn.delete(_ref(digest, table, key), db=store.refs)
        gone.blobs.add(digest)
    for file_id in ids:
        txn.delete(_ref(file_id, table, key), db=store.files)
        gone.files.add(file_id)


def _named_by(
    store: JournalStore, table: Table, key: bytes, stored: bytes, *, deep: bool = True
) -> tuple[bytes | None, list[bytes]]:
    """Return the files that a stored record names; none for a damaged one (`verify` reports it).

    Without `deep`, results' files that are named in a journal's own file are not searched.
    """
    if not flags_of(memoryview(stored)) & BLOB:
        return None, result_files.ids_in(stored[OVERHEAD_BYTES:])
    if not deep:
        return stored[OVERHEAD_BYTES : OVERHEAD_BYTES + _DIGEST_BYTES], []
    try:
        ref = unpack_ref(unseal(table, key, stored)[1])
        return ref.digest, result_files.ids_in(store.blobs.read(ref))
    except (BlobError, EnvelopeError, ValueError):
        return stored[OVERHEAD_BYTES : OVERHEAD_BYTES + _DIGEST_BYTES], []


def _keep(
    txn: lmdb.Transaction[memoryview], store: JournalStore, table: Table, key: bytes, stored: bytes
) -> None:
    try:
        flags, payload = unseal(table, key, stored)
    except EnvelopeError:
        return
    kept = bytes((table,)) + key
    again = seal(Table.HISTORY, kept, payload, flags)
    txn.put(kept, again, db=store.tables[Table.HISTORY])
    name(txn, store, Table.HISTORY, kept, again)


def _left(txn: lmdb.Transaction[memoryview], store: JournalStore, gone: Gone) -> Gone:
    """Return the part that no other record names."""
    if not gone:
        return gone
    refs, files = txn.cursor(store.refs), txn.cursor(store.files)
    return Gone(
        {digest for digest in gone.blobs if not _begins(refs, digest)},
        {file_id for file_id in gone.files if not _begins(files, file_id)},
        gone.kept,
    )


def _ref(digest: bytes, table: Table, key: bytes) -> bytes:
    return digest + bytes((table,)) + key


def _begins(cursor: lmdb.Cursor[memoryview], prefix: bytes) -> bool:
    return cursor.set_range(prefix) and cursor.key()[: len(prefix)] == prefix
