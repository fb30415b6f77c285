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
    """Have files here (`fetch`), in the run's folder (`push`), durable there (`sync`), or not any more."""

    what: str
    names: list[str]  # relative to the run folder
    durable: bool = False  # a pushed file


class Had(msgspec.Struct, frozen=True, array_like=True):
    """The answer to all but `remove`: an errno of the host of the run, or 0, and its text."""

    errno: int
    text: str = ""


encode = msgspec.msgpack.Encoder().encode
decode_wanted = msgspec.msgpack.Decoder(Wanted).decode
decode_had = msgspec.msgpack.Decoder(Had).decode
