"""How a process waits while the disk is full: it keeps what it could not write, and tries again.

A write that finds no space (ENOSPC, EDQUOT, EFBIG) is not an error of any item: the broker is told,
reports it and assigns no more work; `rscoop status` and `why` learn it from the flight record. Free
space is checked every `LOOK_S`; a write is tried again when there is enough, and at least every
`AGAIN_S_MAX`, because a quota is not visible in the free space.

The script, and a task that passes arguments, wait as they wait for results. A worker that has a
result to write does nothing else until then, so that one result per worker waits in memory.
"""

from __future__ import annotations

import errno
import time
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

from resilient_scoop.adapters.flight_record import DEADLINE
from resilient_scoop.adapters.free_space import NO_SPACE, free_bytes, free_text
from resilient_scoop.counts import sized
from resilient_scoop.wire import messages as wire

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from resilient_scoop.adapters.flight_record import FlightRecord
    from resilient_scoop.core.worker.work import Work
    from resilient_scoop.core.worker.worker import Worker
    from resilient_scoop.processes.starting import ChildSettings

T = TypeVar("T")
FILE_LIMIT: Final = "see `ulimit -f`"
_REASONS: Final = {errno.EDQUOT: "the disk quota is used up", errno.EFBIG: FILE_LIMIT}
LOOK_S: Final = 0.25
AGAIN_S_MAX: Final = 5.0


class RunningTask(Protocol):
    """The future that is running."""

    work: Work | None
    until: float | None


class Waiter(Protocol):
    """The way in which this process waits: the origin receives, a worker runs other items."""

    def wait(self, ready: Callable[[], bool], until: float | None) -> bool:
        """Return when `ready()` holds (True) or at the moment `until` (False)."""


class WritingProcess(Protocol):
    """The connection to the broker, as far as it is used here (`processes.connection`)."""

    settings: ChildSettings
    role: str
    machine: Worker
    record: FlightRecord
    waiter: Waiter | None

    @property
    def context(self) -> RunningTask:
        """The future that is running."""

    def turn(self) -> AbstractContextManager[object]:
        """Exclude other threads from the machine."""

    def send(self, frame: bytes) -> None:
        """Send a frame, in a turn."""

    def pump(self, timeout_s: float = 0.0) -> None:
        """Receive and send, in a turn."""


class Room:
    """The folder in which a process of a run writes its files."""

    def __init__(self, session: WritingProcess) -> None:
        self.session = session
        self.folder = session.settings.run_dir

    def store(self, write: Callable[[], bytes], size_bytes: int, sync: bool) -> bytes:  # noqa: FBT001 - the protocol has one position each
        """Write a large payload as soon as there is space (`payload.files.Patience`)."""
        if not sync:
            return self.patiently(write, size_bytes, "an argument")
        if self.session.role == "origin":
            return self.patiently(write, size_bytes, "a constant")
        return self.patiently(write, size_bytes, "a result", result=True)

    def patiently(
        self, write: Callable[[], T], size_bytes: int, what: str, *, result: bool = False
    ) -> T:
        """Call `write` until there is space for it.

        Raises:
            OSError: `write` failed for another reason. GreenletExit: the result is no longer
            wanted.
        """
        try:
            return write()
        except OSError as error:
            if error.errno not in NO_SPACE:
                raise
            reason = _REASONS.get(error.errno, "")
        return self._wait(write, wire.NoRoom(max(1, size_bytes), what, reason, result))

    def _wait(self, write: Callable[[], T], need: wire.NoRoom) -> T:
        session, record, context = self.session, self.session.record, self.session.context
        began, pause_s, known_epoch = time.monotonic(), LOOK_S, -1
        again_at, left_bytes = began + pause_s, free_bytes(self.folder)
        until, context.until = context.until, None
        record.wait_for_space(need.size_bytes)
        record.words[DEADLINE] = 0
        try:
            while True:
                if known_epoch != session.machine.link.epoch:  # a new broker does not know it
                    known_epoch = session.machine.link.epoch
                    self._tell(need)
                self._pass_time(need)
                now_bytes = free_bytes(self.folder)
                is_enough = need.size_bytes <= now_bytes > left_bytes
                if not is_enough and time.monotonic() < again_at:
                    continue
                try:
                    return write()
                except OSError as error:
                    if error.errno not in NO_SPACE:
                        raise
                pause_s = min(2 * pause_s, AGAIN_S_MAX)
                again_at, left_bytes = time.monotonic() + pause_s, free_bytes(self.folder)
        finally:
            record.wait_for_space(0)
            if until is not None:  # waiting does not count as time of the call
                context.until = until + time.monotonic() - began
                record.words[DEADLINE] = round(context.until * 1e9)
            self._tell(wire.NoRoom(0))

    def _tell(self, need: wire.NoRoom) -> None:
        with self.session.turn():
            self.session.send(wire.encode(need))

    def _pass_time(self, need: wire.NoRoom) -> None:
        session, until = self.session, time.monotonic() + LOOK_S
        assert session.waiter is not None, "who writes can wait"
        if not need.result:
            session.waiter.wait(lambda: False, until)
            return
        running = session.context.work
        while (left_s := until - time.monotonic()) > 0:
            if session.machine.stopping is not None or (running is not None and running.dropped):
                from resilient_scoop.adapters.greenlets import GreenletExit  # not for the agent

                raise GreenletExit
            began = time.monotonic()
            with session.turn():
                session.pump(left_s)
            if running is not None:  # no call computes meanwhile
                now = time.monotonic()
                running.since = min(now, running.since + now - began)


def missing_space_text(need: wire.NoRoom, folder: str) -> str:
    """Return, for display, what there is no space for, where, and how much is free."""
    size = f" of {sized(need.size_bytes)}" if need.size_bytes > 1 else ""
    why = f"; {need.reason}" if need.reason else ""
    return f"no space left for {need.what}{size} in {folder} ({free_text(folder)}{why})"
