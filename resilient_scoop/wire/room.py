"""What a process says that has no room on the disk for a file."""

from __future__ import annotations

import msgspec


class NoRoom(
    msgspec.Struct, frozen=True, array_like=True, tag=True, forbid_unknown_fields=True, gc=False
):
    """The disk has no space for a file that the sender is to write; it keeps the content and waits."""

    size_bytes: int  # 0: it has been written
    what: str = ""
    reason: str = ""
    result: bool = False  # of an item: nothing new is started while others may still make room
