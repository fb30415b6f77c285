"""How long a run has been running: one record per launcher, with its start and last sign of life.

The file is for display only: it is neither synced nor needed by a resume. A launcher writes a sign
of life every `EVERY_S`. A record is written by one system call, completely or not at all.
"""

from __future__ import annotations

import os
import struct
from contextlib import suppress
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

EVERY_S: Final = 1.0
_RECORD: Final = struct.Struct("<dd")
_NAME: Final = "lives"


class Lives:
    """The record of this launcher; times are seconds since 1970."""

    def __init__(self, folder: Path, now: float) -> None:
        self._fd = -1
        self._began = self._reported_at = now
        self._at = 0
        with suppress(OSError):  # a full disk: the time is unknown then
            self._fd = os.open(folder / _NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            size = os.fstat(self._fd).st_size
            self._at = size - size % _RECORD.size
            self._write(now)

    def live(self, now: float) -> None:
        """Record from time to time that the launcher is alive."""
        if now - self._reported_at >= EVERY_S:
            self._write(now)

    def end(self, now: float) -> None:
        """Record its end."""
        if self._fd >= 0:
            self._write(now)
            os.close(self._fd)
            self._fd = -1

    def _write(self, now: float) -> None:
        self._reported_at = now
        if self._fd >= 0:
            with suppress(OSError):
                os.pwrite(self._fd, _RECORD.pack(self._began, max(now, self._began)), self._at)


def ran_s(folder: Path, now: float | None = None) -> float | None:
    """Return how long a run has run; None if unknown. `now`: it is running."""
    try:
        data = (folder / _NAME).read_bytes()
    except OSError:
        return None
    lives = list(_RECORD.iter_unpack(data[: len(data) - len(data) % _RECORD.size]))
    if not lives:
        return None
    if now is not None:
        lives[-1] = (lives[-1][0], now)
    return float(sum(max(0.0, end - begin) for begin, end in lives))
