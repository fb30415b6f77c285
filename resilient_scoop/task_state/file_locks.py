"""`fcntl.lockf` and `fcntl.fcntl` in a process whose one thread runs many tasks.

POSIX record locks belong to a process: all tasks of a worker would own a lock that one of them has
taken, and the first one that closes the file would unlock it for all. Linux also has locks that
belong to an open file (F_OFD_SETLK), with the same ranges, which conflict with the others. In a
worker they are used instead. The rest is handled here:

  FL1  A task has one open file for its locks of an inode: a lock through another one is moved there,
      since POSIX never has a process wait for itself.
  FL2  A task that wants a lock through an open file waits for the waiting tasks that hold one through it.
  FL3  A lock that an ended task left goes to the next task that asks, as within one process.

Forked children use the process locks of the kernel.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from typing import TYPE_CHECKING, Any, Final

import msgspec

from resilient_scoop.task_state import locks

if TYPE_CHECKING:
    from collections.abc import Callable

_FLOCK: Final = struct.Struct("@hhqqi0q")  # struct flock: type, whence, start, length, process
_OFD: Final = {fcntl.F_GETLK: 36, fcntl.F_SETLK: 37, fcntl.F_SETLKW: 38}
_HELD_MAX: Final = 64
_fcntl: Any = fcntl.fcntl
_lockf: Any = fcntl.lockf


class _Held(msgspec.Struct):
    """An open file through which a task has locked a range."""

    task: str
    fd: int
    is_exclusive: bool


class _Table:
    """The locks of this process' tasks, by inode."""

    def __init__(self, here: Callable[[], str], waits: Callable[[str], bool]) -> None:
        self.pid = os.getpid()
        self.here = here
        self.waits = waits  # whether a task waits; all tasks that neither wait nor run have ended
        self.held: dict[tuple[int, int], list[_Held]] = {}

    def call(self, fd: int, command: int, lock: bytes) -> bytes:
        """Carry out a lock operation of `fcntl`, through the one open file of the task (FL1)."""
        inode, kind = _inode(fd), _FLOCK.unpack(lock)[0]
        task = self.here()
        mine = self._mine(inode, task)
        wanted = _Held(task, fd if mine is None else mine.fd, kind == fcntl.F_WRLCK)
        if kind != fcntl.F_UNLCK and command != fcntl.F_GETLK:
            self._wait(inode, wanted, blocks=command == fcntl.F_SETLKW)
        answer: bytes = _fcntl(wanted.fd, _OFD[command], lock)
        if command != fcntl.F_GETLK:
            self._note(inode, wanted, lock)
        return answer

    def _valid(self, inode: tuple[int, int]) -> list[_Held]:
        return [held for held in self.held.get(inode, ()) if _inode(held.fd) == inode]

    def _mine(self, inode: tuple[int, int], task: str) -> _Held | None:
        """Return the locked file of the task for an inode, or one that an ended task left (FL3)."""
        found = [h for h in self._valid(inode) if h.task == task or not self.waits(h.task)]
        return found[-1] if found else None

    def _wait(self, inode: tuple[int, int], wanted: _Held, *, blocks: bool) -> None:
        """Wait while another task has a lock through the same open file (FL2)."""

        def is_free() -> bool:
            return not any(
                held.fd == wanted.fd and held.task != wanted.task and self.waits(held.task)
                and (wanted.is_exclusive or held.is_exclusive)
                for held in self._valid(inode)
            )  # fmt: skip

        while not is_free():
            if not blocks:
                raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
            locks.run_others(is_free)

    def _note(self, inode: tuple[int, int], held: _Held, lock: bytes) -> None:
        kind, _, start, length, _ = _FLOCK.unpack(lock)
        others = [
            each for each in self._valid(inode) if (each.task, each.fd) != (held.task, held.fd)
        ]
        others = [each for each in others if self.waits(each.task)]
        if kind != fcntl.F_UNLCK:
            others.append(held)
        elif start or length:
            return  # parts may still be locked
        if others:
            self.held[inode] = others
        else:
            self.held.pop(inode, None)
        if len(self.held) > _HELD_MAX:
            self.held = {each: valid for each in self.held if (valid := self._valid(each))}


def _inode(fd: int) -> tuple[int, int]:
    try:
        found = os.fstat(fd)
    except OSError:
        return -1, -1
    return found.st_dev, found.st_ino


def install(here: Callable[[], str], waits: Callable[[str], bool]) -> None:
    """Make locks belong to the tasks of this process; `here` returns the running one."""
    table = _Table(here, waits)

    def lockf(fd: Any, cmd: int, len: int = 0, start: int = 0, whence: int = 0, /) -> Any:  # noqa: A002 - its name in `fcntl`
        if os.getpid() != table.pid:
            return _lockf(fd, cmd, len, start, whence)
        if cmd == fcntl.LOCK_UN:
            kind = fcntl.F_UNLCK
        elif cmd & fcntl.LOCK_SH:
            kind = fcntl.F_RDLCK
        elif cmd & fcntl.LOCK_EX:
            kind = fcntl.F_WRLCK
        else:
            raise ValueError("unrecognized lockf argument")
        command = fcntl.F_SETLK if cmd & fcntl.LOCK_NB else fcntl.F_SETLKW
        table.call(_number(fd), command, _FLOCK.pack(kind, whence, start, len, 0))
        return None

    def call(fd: Any, cmd: int, arg: Any = 0, /) -> Any:
        is_lock = cmd in _OFD and isinstance(arg, bytes | bytearray) and len(arg) <= _FLOCK.size
        if not is_lock or os.getpid() != table.pid:
            return _fcntl(fd, cmd, arg)
        kind, whence, start, length, _ = _FLOCK.unpack(bytes(arg).ljust(_FLOCK.size, b"\0"))
        lock = _FLOCK.pack(kind, whence, start, length, 0)
        return table.call(_number(fd), cmd, lock)[: len(arg)]

    lockf.__doc__, call.__doc__ = _lockf.__doc__, _fcntl.__doc__
    call.__name__ = "fcntl"
    vars(fcntl).update(lockf=lockf, fcntl=call)


def _number(fd: Any) -> int:
    return fd if isinstance(fd, int) else int(fd.fileno())
