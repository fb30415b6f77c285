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

A lock may also be *polled*: tried again and again, with pauses (`filelock`, `acquire(timeout=…)` in a loop). A
task polls if it is seen in pauses one after another for some seconds, hardly uses the CPU, and other tasks of the
worker wait. It gives way inside of a pause. Where the pauses are those of C code (`sqlite3`
waits so for a locked database), Python cannot run the handler there, and L3 helps.

  L1  Only a task's own code gives way: not the runtime, which may hold the session's lock, nor an import.
  L2  While tasks wait for locks, their worker begins none of the script's own calls: what holders wait for
      is below them. So at most one task waits for a lock at a time, but for those that held one.
  L3  Where giving way does not help (tasks that wait for each other, a wait that no signal interrupts), the
      worker ends without blame and is started anew; its successor runs one of the script's calls at a time,
      and of the calls below them first those that the task which waits last has made, as plain Python does.
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

from resilient_scoop.adapters import file_locks, locks
from resilient_scoop.adapters.flight_record import DEADLINE
from resilient_scoop.adapters.green import getcurrent
from resilient_scoop.adapters.modules import PACKAGE
from resilient_scoop.ids import ROOT
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
_PAUSES: Final[dict[str, frozenset[int]]] = {
    # nanosleep, clock_nanosleep, select, pselect6, poll, ppoll, epoll_wait, epoll_pwait, epoll_pwait2
    "x86_64": frozenset({35, 230, 23, 270, 7, 271, 232, 281, 441}),
    "aarch64": frozenset({101, 115, 72, 73, 22, 441}),
}
_SETLKW: Final = (7, 38)
_COMMAND_AT: Final = 2
POLL_S: Final = 3.0
"""For how long a task must have paused again and again until it is taken for one that polls."""
_PAUSES_MIN: Final = 3
_POLLS_CPU: Final = 0.25
"""Who uses more of a CPU computes."""
_DEAF_S, _DEAF_LONG_S = 0.25, 1.1
"""A signal that no handler has heard for so long came into a pause of C code: 5 s is the default of `sqlite3`."""
_EXECUTOR: Final = os.path.join(PACKAGE, "runtime", "executor.py")  # noqa: PTH118 - a prefix of names
_LOCKS: Final = tuple(
    os.path.join(PACKAGE, "adapters", name)  # noqa: PTH118
    for name in ("locks.py", "file_locks.py")
)


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
        self._polls = _Polls(self._main)

    def install(self) -> None:
        """Begin; to be called in the main thread before the user's code runs."""
        signal.signal(SIGNAL, self._heard)
        locks.share(self.give_way)
        hub = self.hub
        file_locks.install(lambda: hub.session.context.path, hub.parked.__contains__)

    # --- the deputy ---------------------------------------------------------------------------

    def look(self, now: float) -> bool:
        """Have a task give way if the main thread waits for a lock; return whether it is told so.

        The deputy asks now and then.
        """
        hub, on_cpu = self.hub, self.hub.session.record.read()
        if not hub.parked:
            self._seen, self._stuck_at = (), None
            return False
        self._free(now)
        frame = sys._current_frames().get(self._main)  # noqa: SLF001 - of this process' own thread
        if frame is None or on_cpu is None or not _is_tasks(frame):
            self._seen = ()
            return False
        seen, before = (id(frame), frame.f_lasti, self._switches()), self._seen
        if seen != before:
            self._seen, self._seen_at = seen, now
        number, command = self._system_call()
        work = hub.session.context.work
        function = None if work is None else work.task.fn
        if self._polls.look(now, on_cpu[:5], function, seen, number):
            if self._polls.is_deaf(now, _DEAF_S if self._is_anyone_kept() else _DEAF_LONG_S):
                self._end("a task waits in C code for a lock that another task of this worker may hold")
        elif seen != before or not self._is_lock(number, command):
            return False
        elif self._delay_s == FIRST_S and now - self._seen_at < HOLD_S:
            return False
        if self._stuck_at is None:
            self._stuck_at, self._spent_s = now, time.process_time()
        self._sent_at = time.monotonic()
        self._polls.told(now)
        signal.pthread_kill(self._main, SIGNAL)
        return True

    def _is_anyone_kept(self) -> bool:
        """Tell whether what the main thread does surely keeps a parked task from going on."""
        hub = self.hub
        machine = hub.session.machine
        if hub.settings.workers == 1 or machine.fenced:
            return True
        if any(work.task.parent != ROOT for work in (*hub.open, *machine.queue)):
            return True
        return any(parked.ready() for parked in hub.parked.values())

    def _switches(self) -> tuple[str, ...]:
        """Return how often the main thread has left the CPU."""
        try:
            status = (self._proc / "status").read_text("ascii", "replace")
        except OSError:
            return (str(time.monotonic_ns()),)
        return tuple(line for line in status.splitlines() if "ctxt_switches" in line)

    def _system_call(self) -> tuple[int, int]:
        """Return the number of the system call that the main thread is in, and its second argument."""
        try:
            words = (self._proc / "syscall").read_text("ascii").split()
        except OSError:
            return -1, 0
        is_in = len(words) > _COMMAND_AT and words[0].isdigit()
        return (int(words[0]), int(words[_COMMAND_AT], 16)) if is_in else (-1, 0)

    def _is_lock(self, number: int, command: int) -> bool:
        call = self._calls.get(number)
        return call is not None and (call != "fcntl" or command in _SETLKW)

    def _free(self, now: float) -> None:
        """End the worker where nothing has helped for long (L3)."""
        stuck_at, hub = self._stuck_at, self.hub
        if stuck_at is None or now - stuck_at < FREE_S:
            return
        spent_s, self._stuck_at = time.process_time() - self._spent_s, None
        if spent_s <= (now - stuck_at) / 10:  # else it computes, in native code perhaps
            self._end("a task waits for a lock that other tasks of this worker hold, and none continues")

    def _end(self, why: str) -> None:
        """End the worker, unless a new start gives nothing, or would lose what must not run twice."""
        hub = self.hub
        self._polls.again()
        if hub.settings.careful:
            return
        works = [parked.context.work for parked in hub.parked.values()]
        works.append(hub.session.context.work)
        if not all(work is None or work.callable.options.idempotent for work in works):
            self.say(
                f"{why}; the worker is not restarted, because it has idempotent=False calls: "
                "`rscoop cancel` ends them"
            )
            return
        self.say(f"{why}: the worker is restarted")
        hub.session.record.idle()
        sys.stderr.flush()
        os._exit(START_AGAIN)

    # --- the main thread ----------------------------------------------------------------------

    def _heard(self, _number: int, frame: FrameType | None) -> None:
        """Give way, in the middle of a blocked call."""
        self._polls.heard()
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


class _Polls:
    """Whether the task on the CPU tries something again and again, with pauses."""

    def __init__(self, main: int) -> None:
        machine = platform.machine()
        self._clock = time.pthread_getcpuclockid(main)
        self._pauses = _PAUSES.get(machine, frozenset())
        self._calls = self._pauses | _CALLS.get(machine, {}).keys()
        self._task: object = None
        self._pause: object = None  # the last one that was seen
        self._count = 0  # how many pauses were seen
        self._since = self._spent_s = self._all_spent_s = 0.0
        self._known: object = None  # a function that polls
        self._told_at: float | None = None  # since when no handler has heard a signal

    def look(self, now: float, task: object, function: object, pause: object, number: int) -> bool:
        """Tell whether the main thread, in a system call, is in a pause of a task that polls."""
        if task != self._task:
            self._task = task
            self._begin(now)
        if number not in self._calls:
            self._told_at = None
            return False
        if pause != self._pause:
            self._pause, self._count = pause, self._count + 1
        since_s = now - self._since
        if time.clock_gettime(self._clock) - self._spent_s > max(since_s, HOLD_S) * _POLLS_CPU:
            self._begin(now)
            return False
        wanted_s = HOLD_S if function == self._known else POLL_S
        if self._count < _PAUSES_MIN or since_s < wanted_s:
            return False
        self._known = function
        self._is_asleep = number in self._pauses
        return True

    _is_asleep = False

    def _begin(self, now: float) -> None:
        self._count, self._since, self._told_at = 0, now, None
        self._spent_s = time.clock_gettime(self._clock)
        self._all_spent_s = time.process_time()

    def told(self, now: float) -> None:
        """A signal is sent into a pause."""
        if self._told_at is None:
            self._told_at = now

    def heard(self) -> None:
        """A handler has heard it."""
        self._told_at = None

    def is_deaf(self, now: float, after_s: float) -> bool:
        """Tell whether the pauses are those of C code, in which no handler runs."""
        if self._told_at is None or now - self._told_at < after_s or not self._is_asleep:
            return False
        return time.process_time() - self._all_spent_s < (now - self._since) * _POLLS_CPU

    def again(self) -> None:
        """Look at the task as at a new one."""
        self._task = None


def _is_tasks(frame: FrameType | None) -> bool:
    """Tell whether a task's own code is at a frame (L1)."""
    while frame is not None:
        file = frame.f_code.co_filename
        if file.startswith("<frozen importlib"):
            return False
        if file.startswith(PACKAGE) and file not in _LOCKS:
            return file == _EXECUTOR
        frame = frame.f_back
    return False
