"""What the launcher says when the system or one of its processes lets it down."""

from __future__ import annotations

import errno
import signal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def refusal(error: OSError) -> str:
    """Return what the system refused, and what may be raised."""
    limit = {errno.EMFILE: " (`ulimit -n` raises it)", errno.EAGAIN: " (see `ulimit -u`)"}
    return f"the system refused it a process or a file: {error}{limit.get(error.errno or 0, '')}"


def last_words(log: Path) -> str:
    """Return the last line of a log behind a colon, for eyes; nothing where there is none."""
    try:
        lines = log.read_text("utf-8", "replace").split("\n")
    except OSError:
        return ""
    return next((f": {line.strip()}" for line in reversed(lines) if line.strip()), "")


def how(code: int) -> str:
    """Return how a process ended, for eyes."""
    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
