"""Messages of an agent that enrolls its key, before it may send anything else.

They are exchanged under the key of a ticket (`transport.tickets`), which opens nothing but this.
"""

from __future__ import annotations

import msgspec

from resilient_scoop.wire.base import Frame


class Enroll(Frame, frozen=True):
    """An agent asks to be admitted under a key that it has made for this run."""

    ticket: str  # its id
    key: bytes  # the public half, Z85
    host: str  # the host's own name; the name in a ticket has precedence
    python: str  # "3.11.7"
    version: str  # of this package
    byteorder: str
    pid: int
    cores: int


class Enrolled(Frame, frozen=True):
    """The key is admitted, for the host of this name in the run."""

    host: str
    number: int = 1  # number of this host, in the order in which hosts were first admitted


class NotEnrolled(Frame, frozen=True):
    """The agent is refused for good; `why` names the cause and the cure."""

    why: str


_encode = msgspec.msgpack.Encoder().encode


def encode(message: Frame) -> bytes:
    """Return the frame of a message."""
    return _encode(message)


decode_request = msgspec.msgpack.Decoder(Enroll).decode
decode_answer = msgspec.msgpack.Decoder(Enrolled | NotEnrolled).decode
