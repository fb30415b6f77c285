"""Standard error of a run's processes on its way to the screen: through the launcher, and recorded.

The script, its children and the agent write to one stream whose other end the launcher reads. So
nothing is written into the live progress line, and everything is recorded in `logs/stderr.log`. If
the user's standard error is a terminal, the stream is one too (of the same size, without any
translation), so that progress bars and colored logs look as without rscoop.

The script's output takes another path, through the journal. So that both are shown in the order in
which the script wrote them, the origin writes a mark before text for standard error: the length of
the output before it. Marked text is shown after that output, or after `HOLD_S` if the output does
not arrive.

The agent holds both ends: if the launcher is killed, no writer gets a signal.
"""

from __future__ import annotations

import fcntl
import os
import re
import struct
import termios
import time
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

LOG: Final = "stderr.log"
HOLD_S: Final = 1.0
_ROOM_BYTES: Final = 1 << 20
_READ_BYTES: Final = 1 << 16
_SIZE: Final = struct.Struct("HHHH")
_MARK: Final = re.compile(rb"\x1b_rscoop:(\d+)\x1b\\")
_MARK_BYTES_MAX: Final = 32


class ErrorStream:
    """The launcher's end. Without a log, it also serves for text that children write to a terminal."""

    def __init__(
        self, log: Path | None, display: Callable[[bytes], None], terminal: int | None
    ) -> None:
        """Make the stream; `terminal` is the user's terminal, if the replaced stream is one."""
        self._display = display
        self._terminal = terminal
        self._rest = b""  # end of the received text: it may be the beginning of a mark
        self._held: deque[tuple[int, float, bytes]] = deque()  # output before it, due, text
        self._at = 0  # the last mark
        if terminal is None:
            self.ours, self.theirs = os.pipe()
            with suppress(OSError):  # more than the user may set: keep the present size
                fcntl.fcntl(self.theirs, fcntl.F_SETPIPE_SZ, _ROOM_BYTES)
        else:
            self.ours, self.theirs = os.openpty()
            _make_raw(self.theirs)
            self._resize()
        os.set_blocking(self.ours, False)
        self._log = -1
        with suppress(OSError):  # a full disk: shown, and not recorded
            if log is not None:
                self._log = os.open(
                    log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600
                )

    def hear(self) -> None:
        """Read the text that has arrived."""
        count = 0
        while (data := self._read()) and count < _ROOM_BYTES:
            count += len(data)
            self._take(self._rest + data)
        if not data and self._rest:
            self._hold(self._rest)
            self._rest = b""

    def _take(self, data: bytes) -> None:
        start = 0
        for mark in _MARK.finditer(data):
            self._hold(data[start : mark.start()])
            self._at, start = int(mark[1]), mark.end()
        cut = data.rfind(b"\x1b", max(start, len(data) - _MARK_BYTES_MAX))
        stop = len(data) if cut < 0 else cut
        self._hold(data[start:stop])
        self._rest = data[stop:]

    def _hold(self, data: bytes) -> None:
        if not data:
            return
        self._held.append((self._at, time.monotonic() + HOLD_S, data))
        if self._log >= 0:
            with suppress(OSError):
                os.write(self._log, data)

    def due_s(self, now: float) -> float:
        """Return the seconds until something must be shown at the latest."""
        return max(0.0, self._held[0][1] - now) if self._held else 1.0

    def next_at(self) -> int | None:
        """Return the length of the output before the next text."""
        return self._held[0][0] if self._held else None

    def show(self, now: float, shown: int) -> None:
        """Show text whose preceding output is shown, and text that has waited too long."""
        texts = []
        while self._held and (self._held[0][0] <= shown or self._held[0][1] <= now):
            texts.append(self._held.popleft()[2])
        if texts:
            self._display(b"".join(texts))
            self._resize()

    def close(self) -> None:
        """Show the rest, and end."""
        self.hear()
        self.show(float("inf"), 0)
        for fd in (self.ours, self.theirs, self._log):
            if fd >= 0:
                os.close(fd)

    def _read(self) -> bytes:
        try:
            return os.read(self.ours, _READ_BYTES)
        except OSError:
            return b""  # nothing now

    def _resize(self) -> None:
        """Give the terminal of the stream the size of the user's terminal."""
        if self._terminal is not None:
            with suppress(OSError):
                size = fcntl.ioctl(self._terminal, termios.TIOCGWINSZ, bytes(_SIZE.size))
                fcntl.ioctl(self.theirs, termios.TIOCSWINSZ, size)


def _make_raw(fd: int) -> None:
    """Make a terminal pass on text unchanged; the user's terminal translates it."""
    attributes = termios.tcgetattr(fd)
    attributes[1] &= ~termios.OPOST
    attributes[3] &= ~termios.ECHO
    termios.tcsetattr(fd, termios.TCSANOW, attributes)


def mark(position: int) -> bytes:
    """Return the mark that says how much output the script has written before the text that follows.

    It has the form of an escape sequence that terminals ignore.
    """
    return b"\x1b_rscoop:%d\x1b\\" % position


def write_note(text: str) -> None:
    """Write a line to standard error if there is room; a supervisor must not wait for it."""
    import select

    waiting = select.poll()
    waiting.register(2, select.POLLOUT)
    if waiting.poll(0):
        with suppress(OSError):  # it is closed
            os.write(2, f"rscoop: {text}\n".encode("utf-8", "replace"))
