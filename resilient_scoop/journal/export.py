"""Statistics of a journal, its export as JSON lines, and a copy.

An exported line holds the table, the key (hexadecimal), the name of the record's type and its
fields by name; bytes are base64. Pickled values are not opened.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import lmdb
import msgspec

from resilient_scoop.adapters.synced_files import sync_folder
from resilient_scoop.core.events import Table
from resilient_scoop.errors import JournalFormatError
from resilient_scoop.journal.place import (
    BLOB_FOLDER,
    DATA_FILE,
    FORMAT,
    GenerationFile,
    read_meta,
    write_generation,
)
from resilient_scoop.journal.store import (
    JournalReader,
    page_use,
    table_use,
    translate,
)
from resilient_scoop.journal.view import JournalView
from resilient_scoop.wire import messages

_DECODERS: Final[dict[Table, Any]] = {
    Table.LOG: messages.decode_logged,
    Table.HISTORY: messages.decode_logged,
    Table.ARGS: messages.decode_up,
    Table.DEFINE: messages.decode_up,
    Table.CONST: messages.decode_up,
    Table.OUTPUT: messages.decode_up,
    Table.EVENT: msgspec.msgpack.decode,
    Table.PROGRESS: messages.decode_up,
}


class TableStats(msgspec.Struct, frozen=True):
    """Statistics of one table."""

    table: str
    records: int
    pages: int


class JournalStats(msgspec.Struct, frozen=True):
    """Statistics of a journal; free pages are reused before the file grows."""

    run: str
    generation: int
    size_bytes: int
    page_bytes: int
    pages: int
    free_pages: int
    map_bytes: int
    readers: int
    tables: list[TableStats]


def stats(view: JournalView) -> JournalStats:
    """Return the statistics of a journal, without reading its records."""
    try:
        with view.reading() as (store, txn):
            tables = [
                TableStats(table.name.lower(), *table_use(txn, handle))
                for table, handle in store.tables.items()
                if handle is not None
            ]
            use, info = page_use(store, txn), store.env.info()
    except lmdb.Error as error:
        translate(view.directory, "reading", error)
    return JournalStats(
        run=view.run.hex(),
        generation=view.generation,
        size_bytes=view.size_bytes(),
        page_bytes=use.page_bytes,
        pages=use.pages,
        free_pages=use.free,
        map_bytes=info["map_size"],
        readers=info["num_readers"],
        tables=tables,
    )


def export(reader: JournalReader, tables: tuple[Table, ...] = tuple(Table)) -> Iterator[bytes]:
    """Yield a line of JSON, with its end, for each record; memory does not grow with the journal.

    Raises:
        JournalDamagedError: a record is damaged; all before it were yielded.
    """
    for table in tables:
        for key, payload in reader.scan(table):
            line = {"table": table.name.lower(), "key": key.hex(), **_record(table, payload)}
            yield msgspec.json.encode(line) + b"\n"


def backup(view: JournalView, target: Path, *, blobs: bool = True) -> None:
    """Write a compact copy of a journal, live or dead, that opens as a separate journal.

    Files of large payloads are copied after the database, so that a file removed in between is
    missing only if the copy does not name it or the run has dropped it since; without `blobs`, the
    caller copies them.

    Raises:
        JournalFormatError: the target is not empty.
    """
    target.mkdir(mode=0o700, parents=True, exist_ok=True)
    if any(target.iterdir()):
        raise JournalFormatError(str(target), "it is not empty; name a new folder")
    try:
        with view.reading() as (store, _):
            path: Any = os.fsencode(target)  # lmdb takes bytes, its stubs do not
            store.env.copy(path, compact=True)
    except lmdb.Error as error:
        translate(target, "copying", error)
    (target / DATA_FILE).chmod(0o600)
    source = view.directory / BLOB_FOLDER
    if blobs and source.is_dir():
        shutil.copytree(source, target / BLOB_FOLDER, ignore=shutil.ignore_patterns("*.tmp"))
    run = view.run.hex()
    write_generation(target, GenerationFile(run, FORMAT, view.generation, read_meta(target).txn))
    sync_folder(target)


def _record(table: Table, payload: bytes) -> dict[str, Any]:
    decode = _DECODERS.get(table)
    if decode is None:
        return {"type": "bytes", "value": payload}
    try:
        record = decode(payload)
    except msgspec.DecodeError:  # a record of a newer version: not decoded, but not lost
        return {"type": "bytes", "value": payload}
    return {"type": type(record).__name__, "value": _plain(record)}


def _plain(value: Any) -> Any:
    """Return structs, which are stored as arrays, with the names of their fields."""
    if isinstance(value, msgspec.Struct):
        return {name: _plain(getattr(value, name)) for name in value.__struct_fields__}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return value
