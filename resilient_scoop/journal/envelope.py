"""The envelope around every value of the journal: LMDB has no checksums of its own.

    magic u8 | schema u8 | codec u8 | flags u8 | crc32 u32 | payload

The CRC covers the four bytes before it, the table, the key and the payload. So a flipped bit, an
old page, a value under a wrong key or in a wrong table, and a changed flag are all detected. A
record with the flag BLOB holds the name of a file (see `journal.blobs`) in place of the payload.
"""

from __future__ import annotations

import struct
import zlib
from typing import Final

from resilient_scoop.core.events import Table
from resilient_scoop.counts import counted

MAGIC: Final = 0xA7
SCHEMA: Final = 1
PLAIN: Final = 0
"""The only codec so far: the unchanged payload."""
BLOB: Final = 1
"""Flag: the payload is the name of a file."""
OVERHEAD_BYTES: Final = 8

_HEAD: Final = struct.Struct(">BBBBI")


class EnvelopeError(ValueError):
    """The value is not what was written under this key; the text says why."""


def _seed(table: Table, flags: int) -> int:
    return zlib.crc32(bytes((MAGIC, SCHEMA, PLAIN, flags, table)))


_SEEDS: Final = {(t, f): _seed(t, f) for t in Table for f in (0, BLOB)}


def seal(table: Table, key: bytes, payload: bytes, flags: int = 0) -> bytes:
    """Return the value to store for `payload` under `key`."""
    crc = zlib.crc32(payload, zlib.crc32(key, _SEEDS[table, flags]))
    return _HEAD.pack(MAGIC, SCHEMA, PLAIN, flags, crc) + payload


def flags_of(value: memoryview) -> int:
    """Return the flags of a stored value without checking it (0 if it is too short for any)."""
    return value[3] if len(value) >= OVERHEAD_BYTES else 0


def unseal(table: Table, key: bytes, value: bytes | memoryview) -> tuple[int, bytes]:
    """Return the flags and the payload that `seal` was given.

    Raises:
        EnvelopeError: the record is damaged, or of a schema that this version does not know.
    """
    if len(value) < OVERHEAD_BYTES:
        raise EnvelopeError(f"{counted(len(value), 'byte is', 'bytes are')} less than an envelope")
    magic, schema, codec, flags, crc = _HEAD.unpack_from(value)
    if magic != MAGIC:
        raise EnvelopeError(f"it begins with {magic:#04x}, not {MAGIC:#04x}")
    payload = bytes(value[OVERHEAD_BYTES:])
    seed = _SEEDS.get((table, flags))
    if schema != SCHEMA or codec != PLAIN or seed is None:
        raise EnvelopeError(f"unknown schema {schema}, codec {codec} or flags {flags:#04x}")
    if zlib.crc32(payload, zlib.crc32(key, seed)) != crc:
        raise EnvelopeError(f"the checksum of its {counted(len(payload), 'byte')} is wrong")
    return flags, payload
