"""How much of the script's output has been displayed, in a mapped file that outlives the launcher.

A launcher may be killed between writing a piece of output and recording that it was written. So it
records before the write what it is about to write and, if standard output is a file, the length of
that file; its successor checks whether the piece arrived. On a terminal or a pipe this cannot be
checked: a piece that was being written at a `kill -9` is shown again, which is better than not at
all.

The file holds a few words that are mapped, not written: a store is one instruction, costs no system
call, and survives the process (but not a power cut: then output is shown again).
"""

from __future__ import annotations

import mmap
import os
import stat
from pathlib import Path
from typing import Final

_WORDS: Final = 5
_SHOWN, _UNTIL, _DEVICE, _INODE, _SIZE = range(_WORDS)
_BYTES: Final = 8 * _WORDS
_SLACK_BYTES: Final = 1 << 16
"""Room for what others may have written to the same file in between: our own notes, errors of a task."""


class ShownOutput:
    """The mark of one run; held by its launcher. The output goes to `fd`."""

    def __init__(self, path: Path, fd: int) -> None:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.ftruncate(handle, _BYTES)
            os.posix_fallocate(
                handle, 0, _BYTES
            )  # a store into a hole would kill the process if the disk is full
            self._memory = mmap.mmap(handle, _BYTES)
        finally:
            os.close(handle)
        self._words = memoryview(self._memory).cast("Q")
        self._fd = fd

    @property
    def count(self) -> int:
        """How many bytes have been displayed."""
        return self._words[_SHOWN]

    def begin(self, piece: bytes) -> int:
        """Record that a piece is about to be displayed; return how much of it is there already."""
        words, known = self._words, 0
        if words[_UNTIL] > words[_SHOWN]:
            known = self._found(piece)
            words[_SHOWN] += known
        status = os.fstat(self._fd)
        regular = stat.S_ISREG(status.st_mode)
        words[_DEVICE], words[_INODE] = status.st_dev if regular else 0, status.st_ino
        words[_SIZE] = status.st_size
        words[_UNTIL] = words[_SHOWN] + len(piece) - known
        return known

    def end(self) -> None:
        """Record that the piece has been displayed."""
        self._words[_SHOWN] = self._words[_UNTIL]

    def close(self) -> None:
        """Release the memory."""
        self._words.release()
        self._memory.close()

    def _found(self, piece: bytes) -> int:
        """Return how much of a piece the file has at the position where it was to be written."""
        words, status = self._words, os.fstat(self._fd)
        if words[_DEVICE] == 0 or (status.st_dev, status.st_ino) != (
            words[_DEVICE],
            words[_INODE],
        ):
            return 0
        with open(f"/proc/self/fd/{self._fd}", "rb") as file:  # noqa: PTH123 - not a path to a file
            file.seek(words[_SIZE])
            written = file.read(len(piece) + _SLACK_BYTES)
        if piece in written:
            return len(piece)
        pairs = enumerate(zip(piece, written, strict=False))
        return next((at for at, (a, b) in pairs if a != b), min(len(piece), len(written)))
