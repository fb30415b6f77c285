"""A worker's output to its log: if the disk is full, the task waits and does not fail.

The broker is told, as by other processes that wait for space (`processes.disk_space`). But nothing
else runs in this thread meanwhile: output is written in the midst of user code, and by any thread.
"""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING, Final

from resilient_scoop.adapters.flight_record import DEADLINE
from resilient_scoop.adapters.free_space import NO_SPACE
from resilient_scoop.wire import messages as wire

if TYPE_CHECKING:
    from resilient_scoop.processes.connection import Connection

_LOOK_S: Final = 0.25
_WHAT: Final = "a task's output"


def write_patiently(fd: int, data: bytes, session: Connection) -> None:
    """Write all of `data` when there is space for it; give up if the run ends."""
    view = memoryview(data)
    wait: _Wait | None = None
    try:
        while view:
            try:
                view = view[os.write(fd, view) :]
            except OSError as error:
                if error.errno not in NO_SPACE:
                    raise
                if session.machine.stopping is not None:
                    return
                wait = wait or _Wait(session, len(view))
                wait.tell()
                time.sleep(_LOOK_S)
    finally:
        if wait is not None:
            wait.end()


class _Wait:
    """A wait for space, which does not count as time of the call."""

    def __init__(self, session: Connection, size_bytes: int) -> None:
        self._session = session
        self._size_bytes = size_bytes
        self._told_epoch = -1  # the epoch of the broker that knows of it
        self._began = time.monotonic()
        self._context = session.context
        self._until = None
        session.record.wait_for_space(size_bytes)
        if threading.current_thread() is threading.main_thread():
            self._until, self._context.until = self._context.until, None
            session.record.words[DEADLINE] = 0

    def tell(self) -> None:
        """Tell the broker, unless this thread has the machine's turn: it may write in the midst of it."""
        session = self._session
        if self._told_epoch == session.machine.link.epoch or not session.turn().acquire(
            blocking=False
        ):
            return
        try:
            self._told_epoch = session.machine.link.epoch
            session.send(wire.encode(wire.NoRoom(self._size_bytes, _WHAT)))
        finally:
            session.turn().release()

    def end(self) -> None:
        """End the wait: the output has been written, or the run ends."""
        session = self._session
        session.record.wait_for_space(0)
        if self._until is not None:
            self._context.until = self._until + time.monotonic() - self._began
            session.record.words[DEADLINE] = round(self._context.until * 1e9)
        if self._told_epoch >= 0:  # so this thread does not have the turn
            with session.turn():
                session.send(wire.encode(wire.NoRoom(0)))
