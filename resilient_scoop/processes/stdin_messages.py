"""Messages between the launcher and the script's process about the script's standard input.

`processes.origin.stdin` explains when they are sent.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

PIECE_BYTES: Final = 1 << 16
SOURCE_BYTES: Final = 8
REQUEST: Final = struct.Struct("!QQ")  # piece, first not journaled
REPLY: Final = struct.Struct("!QI")  # piece, errno


class InputPiece(NamedTuple):
    """The result of one read."""

    data: bytes
    error: int
