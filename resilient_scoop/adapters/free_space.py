"""Free space of a file system."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Final

from resilient_scoop.counts import sized

if TYPE_CHECKING:
    from pathlib import Path

NO_SPACE: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Numbers of errors that mean that there is no space, now."""


def free_bytes(folder: Path | str) -> int:
    """Return the free space for this user in the file system of a folder; 0 if unknown."""
    try:
        found = os.statvfs(folder)
    except OSError:
        return 0
    return found.f_bavail * found.f_frsize


def free_text(folder: Path | str) -> str:
    """Return, for display, the free space of a folder's file system, and whether it has no inodes."""
    text = f"{sized(free_bytes(folder))} free"
    try:
        found = os.statvfs(folder)
    except OSError:
        return text
    if found.f_files and not found.f_favail:
        return f"{text}, but no inodes: it holds as many files as it can"
    return text
