"""What a process says that has no room on the disk for a file."""

from __future__ import annotations

from resilient_scoop.wire.base import Frame


class NoRoom(Frame, frozen=True):
    """The disk has no space for a file that the sender is to write; it keeps the content and waits."""

    size_bytes: int  # 0: it has been written
    what: str = ""
    reason: str = ""
    result: bool = False  # of an item: nothing new is started while others may still make room
