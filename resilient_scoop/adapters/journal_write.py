"""How changes become one LMDB transaction.

`prepare` seals what is to be put and makes large payloads durable as files; it touches nothing
that a reader sees. `write` is the transaction, and can be repeated when it fails. The order of
changes is kept within a table: what follows an erasure stands after it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Final

import lmdb

from resilient_scoop.adapters.blobs import BLOB_BYTES_MIN
from resilient_scoop.adapters.journal_envelope import BLOB, OVERHEAD_BYTES, flags_of, seal
from resilient_scoop.adapters.journal_store import Store
from resilient_scoop.core.events import Change, Erase, Table

KEY_BYTES_MAX: Final = 470
"""LMDB's 511, less what the table of files puts before a key."""
_DIGEST_BYTES: Final = 32


@dataclass(slots=True)
class Puts:
    """Consecutive puts into one table, sealed; `refs` are the names of files among them."""

    table: Table
    records: list[tuple[bytes, bytes]] = field(default_factory=list)
    refs: list[bytes] = field(default_factory=list)


def prepare(store: Store, changes: Sequence[Change]) -> list[Puts | Erase]:
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
            continue  # gone again within this transaction: it need not be written
        puts = current.get(table)
        if puts is None:
            puts = current[table] = Puts(table)
            steps.append(puts)
        if len(value) > BLOB_BYTES_MIN:
            _put_file(store, puts, key, value)
        else:
            puts.records.append((key, seal(table, key, value)))
    _finish(store, steps)
    return steps


def write(store: Store, steps: Sequence[Puts | Erase]) -> list[bytes]:
    """Commit the steps; return the digests of files that no record names any more."""
    gone: set[bytes] = set()
    with store.env.begin(write=True, buffers=True) as txn:
        for step in steps:
            if isinstance(step, Erase):
                gone |= _erase(txn, store, step)
                continue
            txn.cursor(store.tables[step.table]).putmulti(step.records)
            for ref in step.refs:
                txn.put(ref, b"", db=store.refs)
        refs = txn.cursor(store.refs)
        return [digest for digest in gone if not _begins(refs, digest)]


def is_named(store: Store, digest: bytes) -> bool:
    """Return whether a record names the file of this digest."""
    with store.reading, store.begin() as txn:
        return _begins(txn.cursor(store.refs), digest)


def _put_file(store: Store, puts: Puts, key: bytes, value: bytes) -> None:
    name = store.blobs.write(value)
    puts.records.append((key, seal(puts.table, key, name.pack(), BLOB)))
    puts.refs.append(_ref(name.digest, puts.table, key))


def _finish(store: Store, steps: Sequence[Puts | Erase]) -> None:
    files = False
    for step in steps:
        if isinstance(step, Puts):
            files = files or bool(step.refs)
            step.records.sort(key=itemgetter(0))  # stable: of one key, the last put stays
    if files:
        store.blobs.sync_names()


def _erase(txn: lmdb.Transaction[memoryview], store: Store, step: Erase) -> set[bytes]:
    """Delete by prefix; return the digests of files whose name was among what went."""
    gone: set[bytes] = set()
    prefix, length = step.prefix, len(step.prefix)
    cursor = txn.cursor(store.tables[step.table])
    found = cursor.set_range(prefix) if prefix else cursor.first()
    while found:
        key, value = cursor.item()
        if key[:length] != prefix:
            break
        if flags_of(value) & BLOB:
            digest = bytes(value[OVERHEAD_BYTES : OVERHEAD_BYTES + _DIGEST_BYTES])
            txn.delete(_ref(digest, step.table, bytes(key)), db=store.refs)
            gone.add(digest)
        found = cursor.delete() and bool(cursor.key())  # it stands on the next record now
    return gone


def _ref(digest: bytes, table: Table, key: bytes) -> bytes:
    return digest + bytes((table,)) + key


def _begins(cursor: lmdb.Cursor[memoryview], prefix: bytes) -> bool:
    return cursor.set_range(prefix) and cursor.key()[: len(prefix)] == prefix
