"""Find which records name which files of large results, without unpickling or decoding.

The reference of a payload in a file has 58 bytes: `B`, `r`, the file's id (16 random bytes), the
SHA-256 and the size of its content. In a record's frame it is a byte string of that length, whose
header and first two bytes are searched for. Other data that looks the same by chance also counts as
a reference: then one file too many is recorded, which is harmless, but never one too few.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from resilient_scoop.journal.blobs import (
    BlobError,
    BlobRef,
    BlobStore,
    unpack_ref,
)
from resilient_scoop.wire.payload_tags import FILE

TAG: Final = b"r"
ID_BYTES: Final = 16
FOLDER: Final = "payloads"
"""Folder of the run, beside its journal."""
_REF_BYTES: Final = 1 + ID_BYTES + 40
_WHOLE: Final = FILE + TAG
MARK: Final = bytes((0xC4, _REF_BYTES + 1)) + _WHOLE
"""Beginning of such a payload in a frame: msgpack's header of a byte string, codec, tag."""
_SWEPT_AFTER_S: Final = 3600.0
"""A process that outlived its broker may still send the name of a more recent file."""


def unpack(ref: bytes) -> tuple[BlobRef, str]:
    """Return the content reference and the id of a file; ValueError if it is not a reference."""
    return unpack_ref(ref[1 + ID_BYTES :]), name_of(ref[1 : 1 + ID_BYTES])


def name_of(file_id: bytes) -> str:
    """Return the name of a result's file."""
    return f"res-{file_id.hex()}"


def refs_in(value: bytes) -> Iterator[bytes]:
    """Yield the references that a record's value holds; `value` is a frame or a payload."""
    if len(value) == _REF_BYTES + 1 and value[:2] == _WHOLE:
        yield value[1:]
    at = value.find(MARK)
    while at >= 0:
        ref = value[at + 3 : at + 3 + _REF_BYTES]
        if len(ref) == _REF_BYTES:
            yield ref
        at = value.find(MARK, at + 1)


def ids_in(value: bytes) -> list[bytes]:
    """Return the ids of the files that a record's value names."""
    if MARK not in value and value[:2] != _WHOLE:  # almost always: 50 ns
        return []
    return [ref[1 : 1 + ID_BYTES] for ref in refs_in(value)]


def problems(folder: Path, value: bytes, *, contents: bool) -> Iterator[str]:
    """Yield problems of the files that a record's value names."""
    if MARK not in value and value[:2] != _WHOLE:
        return
    files = BlobStore(folder)
    for ref in refs_in(value):
        try:
            (files.read if contents else files.look)(*unpack(ref))
        except BlobError as error:
            yield str(error)


def remove(folder: Path, file_id: bytes) -> None:
    """Remove the file of a result that no record names any more."""
    (folder / name_of(file_id)).unlink(missing_ok=True)


def sweep(folder: Path, named: Callable[[bytes], bool], *, all_ages: bool) -> int:
    """Remove files of results that no record names; return how many.

    They are from attempts that were late, or died before their name was committed. With `all_ages`,
    no process of the run may be alive.
    """
    now = time.time()  # noqa: TID251 - files have wall clock times
    removed = 0
    for path in folder.glob("res-*"):
        try:
            file_id = bytes.fromhex(path.name[4:])
            due = all_ages or now - path.stat().st_mtime > _SWEPT_AFTER_S
        except (ValueError, OSError):
            continue
        if due and not named(file_id):
            path.unlink(missing_ok=True)
            removed += 1
    return removed
