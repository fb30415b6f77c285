"""Open files of modules: their position, which can be sent to workers, and what tasks may write to.

A worker has its own file object, opened by its import. What the script has read from its own is
known by the position. Tasks and script write to the same file, so each of them appends.
"""

from __future__ import annotations

import fcntl
import io
import os
import stat
import sys
from typing import Any, Final

_STANDARD: Final = ("stdin", "stdout", "stderr", "__stdin__", "__stdout__", "__stderr__")
_WRITERS: Final = {
    "gzip": ("GzipFile",), "bz2": ("BZ2File",), "lzma": ("LZMAFile",), "zipfile": ("ZipFile",),
    "tarfile": ("TarFile",), "wave": ("Wave_write",),
}  # fmt: skip
_IN_MEMORY: Final = (io.BytesIO, io.StringIO)


class FilePosition:
    """Replaces a file that the script has read, or written, to this position."""

    def __init__(self, position: int) -> None:
        self.position = position

    def __reduce__(self) -> tuple[Any, ...]:
        return FilePosition, (self.position,)


class MappedFile:
    """Replaces an array of `numpy.memmap` that writes to its file: a worker maps the same file."""

    def __init__(self, array: Any) -> None:
        self._array = array

    def __reduce__(self) -> tuple[Any, ...]:
        array = self._array
        order = "C" if array.flags["C_CONTIGUOUS"] else "F"
        return type(array), (
            str(array.filename), array.dtype, "r+", array.offset, array.shape, order,
        )  # fmt: skip


def is_mapped(value: object) -> bool:
    """Return whether a value is an array that writes to its file, and not a part of one."""
    numpy: Any = sys.modules.get("numpy")
    if numpy is None or not isinstance(value, getattr(numpy, "memmap", ())):
        return False
    array: Any = value
    return (
        array.mode in ("r+", "w+")
        and array.filename is not None
        and type(array.base).__module__ == "mmap"
    )


def mapping_of(array: Any) -> bytes:
    """Return which part of which file an array shows, and as what."""
    return repr(
        (str(array.filename), array.offset, array.shape, array.dtype.str, array.strides)
    ).encode("utf-8", "surrogatepass")


def is_file(value: object) -> bool:
    """Return whether a value is a file object, and not a standard stream or in memory."""
    if not isinstance(value, io.IOBase) or isinstance(value, _IN_MEMORY):
        return False
    return all(getattr(sys, name, None) is not value for name in _STANDARD)


def state_of_file(value: Any) -> bytes:
    """Return the state of a file object that tasks can see; empty at its begin, or if unknown."""
    try:
        if value.closed:
            return b"closed"
        inner = getattr(value, "_file", None)  # of a spooled temporary file
        return _state(inner if isinstance(inner, io.IOBase) else value)
    except (OSError, ValueError, AttributeError):
        return b""


def _state(value: Any) -> bytes:
    if isinstance(value, _IN_MEMORY):
        size = len(value.getvalue())
    elif not value.readable() or not value.seekable():
        return b""
    else:
        size = _size(value) if value.writable() and not _is_named(value) else 0
    place = _place(value)
    return b"" if place == b"0" and not size else b"at %b of %d" % (place, size)


def _place(value: Any) -> bytes:
    try:
        return b"%d" % value.tell()
    except OSError:  # within a loop over a text file
        return b"a line before %d" % value.buffer.tell()


def position_of(value: Any) -> int | None:
    """Return the position of a file that a worker can be sent, else None."""
    try:
        if value.closed or not value.readable() or not value.seekable():
            return None
        if value.writable() and not _is_named(value):
            return None  # a temporary file: each process has its own
        found: int = value.tell()
    except (OSError, ValueError, AttributeError):
        return None
    return found


def move(value: Any, position: int) -> bool:
    """Move a file to a position; return whether that was possible."""
    try:
        value.seek(position)
    except (OSError, ValueError, AttributeError):
        return False
    return True


def _is_named(value: Any) -> bool:
    return isinstance(getattr(value, "name", None), str | bytes)


def _size(value: Any) -> int:
    return os.fstat(value.fileno()).st_size


def unshared_writer(value: Any) -> str:
    """Return the type of an archive that is being written, to which no other process can write."""
    kind = type(value)
    if isinstance(value, io.TextIOWrapper) and not value.closed:
        return unshared_writer(value.buffer)
    for base in kind.__mro__:
        if base.__name__ in _WRITERS.get(base.__module__, ()) and _writes(value):
            return f"{base.__module__}.{base.__name__}"
    return ""


def _writes(value: Any) -> bool:
    if isinstance(value, io.IOBase):
        return not value.closed and value.writable()
    return getattr(value, "mode", "w") not in ("r", "rb")


def append_to(value: Any) -> None:
    """Let this process append to a file that is open for writing, as tasks that use it do.

    A file that was opened to be updated (`r+`, `w+b`) is written at positions, by each process.
    """
    if not is_file(value) or value.closed or not value.writable():
        return
    is_new_text = isinstance(value, io.TextIOWrapper) and "r" not in getattr(value, "mode", "r")
    if value.readable() and not is_new_text:
        return
    try:
        fd = value.fileno()
        flags = fcntl.fcntl(fd, fcntl.F_GETFL)
        if stat.S_ISREG(os.fstat(fd).st_mode) and not flags & os.O_APPEND:
            value.flush()
            fcntl.fcntl(fd, fcntl.F_SETFL, flags | os.O_APPEND)
    except (OSError, ValueError):  # it has no descriptor
        return
