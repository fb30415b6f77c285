"""The lock of a journal: only one process may write it.

LMDB lets two processes write alternately, which for a journal would mean two brokers. The lock is
flock(2) on `broker.lock`: the kernel releases it when its holder dies in any way, so it can never
be stale. The JSON in the file only names the holder, for the error text, and stays after its death:
the boot id then distinguishes a crash of the broker (the page cache survived) from a reboot.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec

from resilient_scoop.errors import JournalError, RunBusyError

LOCK_FILE: Final = "broker.lock"
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
_HELD_ERRNOS: Final = (errno.EWOULDBLOCK, errno.EACCES)
_TRIES: Final = 5
_TRY_AGAIN_S: Final = 0.01


class Holder(msgspec.Struct, frozen=True):
    """The process that holds a journal, or held it last."""

    pid: int
    host: str
    boot_id: str
    started: str  # wall clock, for display


@dataclass(slots=True)
class JournalLock:
    """A held lock; `previous` is its last holder."""

    directory: Path
    previous: Holder | None
    _fd: int

    def release(self) -> None:
        """Release the lock, so that others can open the journal; a second call does nothing."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def acquire(directory: Path) -> JournalLock:
    """Take the lock of a journal's directory.

    Raises:
        RunBusyError: a live process has it; the error names it. JournalError: the lock file cannot
        be created here.
    """
    path = directory / LOCK_FILE
    try:
        fd = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise JournalError(str(directory), "making its lock file", str(error.strerror)) from error
    try:
        if not _take(fd):
            found = _read(fd)
            os.close(fd)
            raise _busy(directory, found)
        previous = _read(fd)
        content = msgspec.json.encode(_self())
        os.pwrite(fd, content, 0)
        os.ftruncate(fd, len(content))
    except OSError as error:
        os.close(fd)
        raise JournalError(str(directory), "taking its lock", str(error.strerror)) from error
    return JournalLock(directory, previous, fd)


def holder(directory: Path) -> Holder | None:
    """Return the present holder of the journal, or None; works on a read-only directory."""
    try:
        fd = os.open(directory / LOCK_FILE, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        return None if _try(fd, fcntl.LOCK_SH) else _read(fd)
    except OSError:
        return None
    finally:
        os.close(fd)


def boot_id() -> str:
    """Return an id that is the same until the next boot of this host."""
    try:
        return _BOOT_ID.read_text("ascii").strip()
    except OSError:
        return ""


def _self() -> Holder:
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return Holder(os.getpid(), socket.gethostname(), boot_id(), now)


def _take(fd: int) -> bool:
    """Try for a few milliseconds: `holder` in another process takes the lock for an instant."""
    for _ in range(_TRIES):
        if _try(fd, fcntl.LOCK_EX):
            return True
        time.sleep(_TRY_AGAIN_S)
    return False


def _try(fd: int, operation: int) -> bool:
    try:
        fcntl.flock(fd, operation | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _HELD_ERRNOS:
            return False
        raise
    return True


def _read(fd: int) -> Holder | None:
    return _decode(os.pread(fd, 4096, 0))


def _decode(content: bytes) -> Holder | None:
    try:
        return msgspec.json.decode(content, type=Holder)
    except msgspec.DecodeError:
        return None


def _busy(directory: Path, found: Holder | None) -> RunBusyError:
    if found is None:  # it took the lock at this instant and has not written its name yet
        return RunBusyError(str(directory), 0, "this host")
    return RunBusyError(str(directory), found.pid, found.host, found.started)
