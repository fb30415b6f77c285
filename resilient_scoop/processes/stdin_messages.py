"""What the launcher and the script's process say to each other about the script's standard input.

When who says what is told in `processes.origin.stdin`.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

PIECE_BYTES: Final = 1 << 16
SOURCE_BYTES: Final = 8
REQUEST: Final = struct.Struct("!QQ")  # piece, first not journaled
REPLY: Final = struct.Struct("!QI")  # piece, errno


class Piece(NamedTuple):
    """What one read gave."""

    data: bytes
    error: int
