"""Messages between a worker on another host and its agent, about files that both hosts have."""

from __future__ import annotations

from typing import Final

import msgspec

FETCH: Final = "fetch"
PUSH: Final = "push"
SYNC: Final = "sync"
REMOVE: Final = "remove"
SOCKET: Final = "files"
"""Its name, beside the socket for messages to the broker."""
MESSAGE_BYTES_MAX: Final = 1 << 16


class Wanted(msgspec.Struct, frozen=True, array_like=True):
    """A request about files: fetch them, push them to the run's folder, sync them there, or remove them."""

    what: str
    names: list[str]  # relative to the run folder
    durable: bool = False  # a pushed file


class Had(msgspec.Struct, frozen=True, array_like=True):
    """The answer to all requests but `remove`: an errno of the run's host, or 0, and its text."""

    errno: int
    text: str = ""


encode = msgspec.msgpack.Encoder().encode
decode_wanted = msgspec.msgpack.Decoder(Wanted).decode
decode_had = msgspec.msgpack.Decoder(Had).decode
