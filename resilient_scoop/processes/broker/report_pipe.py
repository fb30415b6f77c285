"""The broker's end of its pipe to the launcher, which may be full for minutes if the launcher is stopped.

Messages for the user wait until there is room, and nothing is sent before them. Reports of progress
are left out meanwhile, because each replaces the one before it. A partly written line is continued
later.
"""

from __future__ import annotations

import os
import select
from typing import Final

UNSENT_MAX: Final = 1 << 20
"""How many bytes wait, besides those of final reports."""


class ReportPipe:
    """Lines for the launcher."""

    def __init__(self, fd: int) -> None:
        """`fd`: it is made non-blocking."""
        os.set_blocking(fd, False)
        self._fd = fd
        self._unsent = b""
        self.is_broken = False  # the launcher has ended

    def offer(self, line: bytes) -> bool:
        """Send a line if there is room now; return whether there was."""
        if not self.flush():
            return False
        before, self._unsent = len(line), line
        if not self.flush() and len(self._unsent) == before:
            self._unsent = b""
            return False
        return True

    def keep(self, line: bytes, *, is_final: bool = False) -> None:
        """Send a line as soon as there is room."""
        if is_final or len(self._unsent) < UNSENT_MAX:
            self._unsent += line
        self.flush()

    def flush(self) -> bool:
        """Send waiting lines, as far as there is room; return whether none is left."""
        try:
            while self._unsent:
                self._unsent = self._unsent[os.write(self._fd, self._unsent) :]
        except BlockingIOError:
            return False
        except OSError:
            self.is_broken, self._unsent = True, b""
        return True

    def finish(self) -> None:
        """Wait until the launcher has read everything, or has ended."""
        waiting = select.poll()
        waiting.register(self._fd, select.POLLOUT)
        while not self.flush():
            waiting.poll()
