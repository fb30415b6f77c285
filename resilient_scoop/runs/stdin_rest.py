"""The standard input of a resume whose run had not read all of it.

What was read is journaled; what was still in a pipe, or not typed yet, was lost with the launcher.
An end of file instead would differ from the input with which the script was started. So a resume
without input stops the run unchanged (75), unless the input is known to have ended where the
reading stopped.

Even if the script never saw an end of file, this is known if the launcher could detect it: a pipe
without a writer, a file read to its end, /dev/null. The launcher records it in `input.json`,
together with the number of its pieces; it counts only if all of them are journaled. A resume that
has read nothing records nothing, because its input need not be the rest.

If a file is given again, or the file of the run still exists, reading continues where it stopped,
provided that the file begins with what was read.
"""

from __future__ import annotations

import os
import select
import stat
from typing import TYPE_CHECKING, Final

import msgspec

from resilient_scoop.errors import JournalError, JournalFormatError
from resilient_scoop.journal.view import JournalView
from resilient_scoop.runs import json_text
from resilient_scoop.runs.recorded_streams import read_failed, recorded_input

if TYPE_CHECKING:
    from pathlib import Path

    from resilient_scoop.runs.folder import RunDir
    from resilient_scoop.wire.messages import Input

NAME: Final = "input.json"
_PIECE_BYTES: Final = 1 << 20


class InputEnd(msgspec.Struct, frozen=True, kw_only=True):
    """The number of pieces after which a launcher's input is known to end."""

    source: bytes
    pieces: int


class KnownInput:
    """The input in the journal, while it is read."""

    def __init__(self, folder: Path) -> None:
        self.size = 0
        self._at_end = False
        self._pieces: dict[bytes, int] = {}  # one for each launcher of the run
        self._ended = read_ended(folder)

    def add(self, piece: Input) -> None:
        """Add a piece."""
        self.size += len(piece.data)
        self._at_end = not piece.data and not piece.error
        self._pieces[piece.source] = self._pieces.get(piece.source, 0) + 1

    @property
    def is_whole(self) -> bool:
        """Whether nothing can be missing."""
        if self._at_end:
            return True
        ended = self._ended
        return ended is not None and self._pieces.get(ended.source, 0) == ended.pieces


def read_ended(folder: Path) -> InputEnd | None:
    """Return what a launcher recorded about the end of its input."""
    try:
        return json_text.decode((folder / NAME).read_bytes(), InputEnd)
    except (OSError, msgspec.MsgspecError):
        return None


def was_interrupted(folder: Path) -> bool:
    """Return whether the script of a run did not end by itself, and is not that of a fork."""
    from resilient_scoop.runs.folder import RunDir

    try:
        if RunDir(folder).load().forked_from is not None:
            return False
        with JournalView.open(folder / "journal") as view:
            return read_failed(view) is None
    except (JournalError, JournalFormatError, OSError):
        return False  # another part reports it


def note_ended(folder: Path, ended: InputEnd) -> None:
    """Record that a launcher's input ends after this number of pieces."""
    draft = folder / f"{NAME}.tmp"
    try:
        draft.write_bytes(json_text.encode(ended))
        draft.replace(folder / NAME)
    except OSError:
        return  # a full disk: a resume will ask


def is_at_end(fd: int) -> bool:
    """Return whether the input is at its end and no process can write more; nothing is read."""
    try:
        found = os.fstat(fd)
        if stat.S_ISREG(found.st_mode):
            return os.lseek(fd, 0, os.SEEK_CUR) >= found.st_size
        if stat.S_ISCHR(found.st_mode):
            return found.st_rdev == os.makedev(1, 3)  # /dev/null
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        return any(
            event & select.POLLHUP and not event & select.POLLIN for _, event in poll.poll(0)
        )
    except OSError:
        return False


def file_of(fd: int) -> str | None:
    """Return the path of the file of a descriptor; None if it is not a file."""
    try:
        if stat.S_ISREG(os.fstat(fd).st_mode):
            return os.readlink(f"/proc/self/fd/{fd}")  # noqa: PTH115 - a link of the kernel
    except OSError:
        pass
    return None


def continue_input(run: RunDir, file: str | None, fd: int = 0) -> str:
    """Make a file that is read again continue where reading stopped; return a message.

    `file` is the input with which the run was started: it replaces an empty standard input.
    """
    try:
        with JournalView.open(run.journal) as view:
            known, data = KnownInput(run.path), bytearray()
            for piece in recorded_input(view):
                known.add(piece)
                data += piece.data
    except JournalError:
        return ""  # nothing was read, or the next open will report the error
    if known.is_whole:
        return ""
    given = file_of(fd)
    if given is None and file is not None and (is_at_end(fd) or os.isatty(fd)):
        if not _begins_with(file, bytes(data)):
            return ""
        ours = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
        os.dup2(ours, fd, inheritable=True)
        os.close(ours)
        given = file
    elif given is None or os.lseek(fd, 0, os.SEEK_CUR) != 0 or not _begins_with(given, bytes(data)):
        return ""
    os.lseek(fd, len(data), os.SEEK_SET)
    return f"the script's input continues from {json_text.printable(given)}, at byte {len(data)}"


def _begins_with(path: str, data: bytes) -> bool:
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - the path may be no text
            for start in range(0, len(data), _PIECE_BYTES):
                part = data[start : start + _PIECE_BYTES]
                if file.read(len(part)) != part:
                    return False
    except OSError:
        return False
    return True
