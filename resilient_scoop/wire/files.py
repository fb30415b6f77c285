"""Messages about files of the run folder, between the agent of another host and the broker's host.

Names are relative to the run folder (`payloads/res-…`). Requests can be repeated: each is answered
with the present state, so a request is repeated if a broken connection loses it or its answer.
Sizes and offsets are bytes.
"""

from __future__ import annotations

from typing import Final

import msgspec

from resilient_scoop.wire.base import Frame

CHUNK_BYTES: Final = 1 << 17
"""Content of one message: 1 s at 1 Mbit/s, so that signs of life are not held up for longer."""


class Fetch(Frame, frozen=True):
    """Send the content of a file from `offset` on, one chunk."""

    name: str
    offset: int


class Chunk(Frame, frozen=True):
    """Part of a file, with the SHA-256 of the whole; `error` if there is no such file."""

    name: str
    offset: int
    total: int
    data: bytes
    digest: bytes
    error: str = ""


class Store(Frame, frozen=True):
    """Part of a file that a process of another host has written; `sync`: it must become durable."""

    name: str
    offset: int
    total: int
    data: bytes
    digest: bytes
    sync: bool


class Stored(Frame, frozen=True):
    """How much of a file has arrived in a row; `done`: it has its name, and is durable if asked for.

    `full`: the disk has no space for it; what has arrived stays.
    """

    name: str
    size: int
    done: bool = False
    full: bool = False
    error: str = ""


class Sync(Frame, frozen=True):
    """Make files durable that were stored without `sync`; answered by `Stored` of each."""

    names: list[str]


class Remove(Frame, frozen=True):
    """A file is no longer needed; not answered."""

    name: str


class Log(Frame, frozen=True):
    """New text of the log of a process on another host, to add at `offset` of the run's log.

    Without data it asks how long the run's log is.
    """

    name: str
    offset: int
    data: bytes


class Logged(Frame, frozen=True):
    """How long the run's log is."""

    name: str
    size: int


class Note(Frame, frozen=True):
    """A sentence for the user, from the agent of a host; not answered."""

    text: str


class CodeWanted(Frame, frozen=True):
    """Name the files of the user's code that the run folder keeps, and its decisions."""


class Code(Frame, frozen=True):
    """These files, each with its size and its time (`st_mtime_ns`); none changes, but some grow."""

    files: list[tuple[str, int, int]]


Up = Fetch | Store | Sync | Remove | Log | Note | CodeWanted
Down = Chunk | Stored | Logged | Code

_encode = msgspec.msgpack.Encoder().encode


def encode(message: Up | Down) -> bytes:
    """Return the frame of a message."""
    return _encode(message)


decode_up = msgspec.msgpack.Decoder(Up).decode
decode_down = msgspec.msgpack.Decoder(Down).decode
