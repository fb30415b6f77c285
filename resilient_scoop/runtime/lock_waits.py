"""Tasks that wait for a lock which a task that waits beside them holds.

A worker has one thread. A task that holds a lock over a `map` leaves that thread to others; one of
them that wants the lock would block the thread, and with it the holder, for ever.

So the deputy thread looks whether the main thread is blocked in a lock: the same place in the user's
code, no switch of context in between, and a system call that locks make (a futex, `flock`, `fcntl`).
It then sends a signal. Python runs the signal's handler in the middle of the blocked call, and the
handler leaves the task's greenlet to the hub: the task *gives way*. When others have gone on, its
greenlet goes on too, the handler returns, and Python tries the lock again. So it is with all that
Python interrupts for signals: `threading` and `multiprocessing` locks, semaphores, conditions, queues,
`flock`. (`adapters.locks` sees to `RLock`.)

  L1  Only a task's own code gives way: not the runtime, which may hold the session's lock, nor an import.
  L2  While tasks wait for locks, their worker begins none of the script's own calls: what holders wait for
      is below them. So at most one task waits for a lock at a time, but for those that held one.
  L3  Where giving way does not help (tasks that wait for each other, a wait that no signal interrupts), the
      worker ends without blame and is started anew; its successor runs one of the script's calls at a time.
"""

from __future__ import annotations

import os
import platform
import signal
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from resilient_scoop.adapters import locks
from resilient_scoop.adapters.flight_record import DEADLINE
from resilient_scoop.adapters.green import getcurrent
from resilient_scoop.adapters.modules import PACKAGE
from resilient_scoop.runtime.child import START_AGAIN

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    from resilient_scoop.runtime.hub import Hub

SIGNAL: Final = signal.SIGRTMIN + 3
HOLD_S: Final = 0.3
"""How long the main thread must have been blocked."""
FRESH_S: Final = 0.2
"""A signal that is handled later was not handled in the blocked call: that has returned by itself."""
FIRST_S, MOST_S = 0.05, 1.0
"""How long a task gives way at first, and at most, while nothing else goes on."""
FREE_S: Final = 20.0
"""How long nothing may help until the worker ends."""
_CALLS: Final[dict[str, dict[int, str]]] = {
    "x86_64": {202: "futex", 449: "futex", 73: "flock", 72: "fcntl", 65: "semop", 220: "semop"},
    "aarch64": {98: "futex", 449: "futex", 32: "flock", 25: "fcntl", 193: "semop", 192: "semop"},
}
_SETLKW: Final = (7, 38)
_EXECUTOR: Final = os.path.join(PACKAGE, "runtime", "executor.py")  # noqa: PTH118 - a prefix of names
_LOCKS: Final = os.path.join(PACKAGE, "adapters", "locks.py")  # noqa: PTH118


class LockWaits:
    """Sees the main thread blocked in a lock, and has the task give way."""

    def __init__(self, hub: Hub, say: Callable[[str], None]) -> None:
        self.hub = hub
        self.say = say
        self.waiting = 0  # tasks that gave way
        self.progress = 0  # how often another task has gone on
        self._delay_s = FIRST_S
        self._seen: tuple[Any, ...] = ()
        self._seen_at = 0.0
        self._sent_at = 0.0
        self._stuck_at: float | None = None  # since when nothing has helped
        self._spent_s = 0.0
        self._proc = Path(f"/proc/self/task/{threading.get_native_id()}")
        self._main = threading.get_ident()
        self._calls = _CALLS.get(platform.machine(), {})

    def install(self) -> None:
        """Begin; to be called in the main thread before the user's code runs."""
        signal.signal(SIGNAL, self._heard)
        locks.share(self.give_way)

    # --- the deputy ---------------------------------------------------------------------------

    def look(self, now: float) -> bool:
        """Have a task give way if the main thread is blocked in a lock; return whether it is told so.

        The deputy asks now and then.
        """
        if not self.hub.parked:
            self._seen, self._stuck_at = (), None
            return False
        self._free(now)
        frame = sys._current_frames().get(self._main)  # noqa: SLF001 - of this process' own thread
        if frame is None or self.hub.session.record.read() is None or not _is_tasks(frame):
            self._seen = ()
            return False
        seen = (id(frame), frame.f_lasti, self._switches())
        if seen != self._seen:
            self._seen, self._seen_at = seen, now
            return False
        if self._delay_s == FIRST_S and now - self._seen_at < HOLD_S:
            return False
        if not self._is_in_lock():
            return False
        if self._stuck_at is None:
            self._stuck_at, self._spent_s = now, time.process_time()
        self._sent_at = time.monotonic()
        signal.pthread_kill(self._main, SIGNAL)
        return True

    def _switches(self) -> tuple[str, ...]:
        """Return how often the main thread has left the CPU."""
        try:
            status = (self._proc / "status").read_text("ascii", "replace")
        except OSError:
            return (str(time.monotonic_ns()),)
        return tuple(line for line in status.splitlines() if "ctxt_switches" in line)

    def _is_in_lock(self) -> bool:
        try:
            words = (self._proc / "syscall").read_text("ascii").split()
        except OSError:
            return False
        call = self._calls.get(int(words[0])) if words[0].lstrip("-").isdigit() else None
        return call is not None and (call != "fcntl" or int(words[2], 16) in _SETLKW)

    def _free(self, now: float) -> None:
        """End the worker where nothing has helped for long (L3)."""
        stuck_at, hub = self._stuck_at, self.hub
        if stuck_at is None or now - stuck_at < FREE_S:
            return
        spent_s, self._stuck_at = time.process_time() - self._spent_s, None
        works = [parked.context.work for parked in hub.parked.values()]
        if spent_s > (now - stuck_at) / 10 or hub.settings.careful:
            return  # it computes, in native code perhaps; or there is nothing to be had of a new start
        if not all(work is None or work.callable.options.idempotent for work in works):
            self.say(
                "a task waits for a lock that other tasks of this worker hold, and none of them "
                "continues; the worker is not restarted, because it has idempotent=False calls: "
                "`rscoop cancel` ends them"
            )
            return
        self.say(
            "a task waits for a lock that other tasks of this worker hold, and none of them continues: "
            "the worker is restarted"
        )
        hub.session.record.idle()
        sys.stderr.flush()
        os._exit(START_AGAIN)

    # --- the main thread ----------------------------------------------------------------------

    def _heard(self, _number: int, frame: FrameType | None) -> None:
        """Give way, in the middle of a blocked call."""
        if time.monotonic() - self._sent_at > FRESH_S or getcurrent() is self.hub.green:
            return
        if frame is None or not _is_tasks(frame) or self.hub.session.context.work is None:
            return
        self.give_way(lambda: False, None)

    def give_way(self, ready: Callable[[], bool], until: float | None) -> None:
        """Let other tasks run until `ready()` holds, one of them has gone on, or some time is over."""
        hub, session = self.hub, self.hub.session
        deadline, progress = session.record.words[DEADLINE], self.progress
        end = time.monotonic() + self._delay_s
        self._delay_s = min(MOST_S, self._delay_s * 2)
        self.waiting += 1
        try:
            hub.wait(
                lambda: ready() or self.progress != progress,
                end if until is None else min(until, end),
                gives_way=True,
            )
        finally:
            self.waiting -= 1
        session.record.words[DEADLINE] = deadline

    def went_on(self) -> None:
        """Another task has gone on, and may have let go of a lock."""
        self.progress += 1
        self._delay_s = FIRST_S
        self._stuck_at = None


def _is_tasks(frame: FrameType | None) -> bool:
    """Tell whether a task's own code is at a frame (L1)."""
    while frame is not None:
        file = frame.f_code.co_filename
        if file.startswith("<frozen importlib"):
            return False
        if file.startswith(PACKAGE) and file != _LOCKS:
            return file == _EXECUTOR
        frame = frame.f_back
    return False
