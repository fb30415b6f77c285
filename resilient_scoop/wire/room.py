"""Message of a process that waits for disk space."""

from __future__ import annotations

from resilient_scoop.wire.base import Frame


class NoRoom(Frame, frozen=True):
    """The disk has no space for a file of the sender, which keeps the content and waits."""

    size_bytes: int  # 0: it has been written
    what: str = ""
    reason: str = ""
    result: bool = (
        False  # it is a result: no item is started while running ones may still free space
    )
