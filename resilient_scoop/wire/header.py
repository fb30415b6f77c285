"""The first frame of every message: the run, the epoch of the broker, and the link's counters."""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

MAGIC: Final = b"RS01"
_HEADER: Final = struct.Struct("!4s8sBIQQ")
BEAT: Final = 1  # flag: only a sign of life; `seq` is the last number sent
RESEND: Final = 2  # flag: a message is missing; send everything after `ack` again


class Header(NamedTuple):
    """First frame of every message: the run, the epoch of the broker, and the link's counters."""

    run: bytes  # first 8 bytes of the run's UUID
    flags: int
    epoch: int  # the sender's view; 0 before the first Welcome
    seq: int  # this message's number, from 1 in each epoch of the link
    ack: int  # highest number received in order (by a broker: committed)

    def pack(self) -> bytes:
        """Return the frame."""
        return pack_header(*self)


def pack_header(run: bytes, flags: int, epoch: int, seq: int, ack: int) -> bytes:
    """Return the frame of a header of these fields."""
    return _HEADER.pack(MAGIC, run, flags, epoch, seq, ack)


def unpack_header(frame: bytes) -> Header:
    """Return the header; raises ValueError if it is invalid."""
    if len(frame) != _HEADER.size:
        raise ValueError(f"header of {len(frame)} bytes, not {_HEADER.size}")
    magic, run, flags, epoch, seq, ack = _HEADER.unpack(frame)
    if magic != MAGIC:
        raise ValueError(f"magic {magic!r}, not {MAGIC!r}: another protocol or version")
    return Header(run, flags, epoch, seq, ack)
