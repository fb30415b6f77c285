"""Handle tasks that wait for a lock held by another waiting task of the same worker.

A worker has one thread. A task that holds a lock during a `map` leaves that thread to other tasks;
if one of them waited for the lock, it would block the thread, and with it the holder, forever.

So the deputy thread looks whether the main thread is blocked in a lock: the same place in the
user's code, no switch of context in between, and a system call that locks make (a futex, `flock`,
`fcntl`). It then sends a signal. Python runs the signal's handler in the middle of the blocked
call, and the handler switches to the worker loop: the task *yields*. After other tasks have run,
its greenlet continues, the handler returns, and Python tries the lock again. This works for every
call that Python interrupts for signals: `threading` and `multiprocessing` locks, semaphores,
conditions, queues, `flock`. (`task_state.locks` handles `RLock`.)

A lock may also be *polled*: tried repeatedly, with pauses (`processes.worker.polls`). The task
yields inside a pause. If the pauses are in C code (`sqlite3` waits in this way for a locked
database), Python cannot run the handler there, and L3 applies.

  L1  Only a task's own code yields: not the runtime, which may hold the session's lock, nor an import.
  L2  While tasks wait for locks, their worker starts none of the script's own calls, because holders
      wait only for calls below them. So at most one task waits for a lock at a time, except for those
      that held one.
  L3  If yielding does not help (tasks that wait for each other, a wait that no signal interrupts, a
      holder that was moved to another worker and had no `finally`), the worker ends without blame and
      is restarted. Its successor runs one of the script's calls at a time; below it, first what the
      deepest waiting task needs, as plain Python does.
"""

from __future__ import annotations

import os
import platform
import signal
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from resilient_scoop.adapters.flight_record import DEADLINE
from resilient_scoop.adapters.greenlets import getcurrent
from resilient_scoop.core.endings import START_AGAIN
from resilient_scoop.ids import SCRIPTS
from resilient_scoop.processes.worker.polls import HOLD_S, LOCK_CALLS, Polls
from resilient_scoop.task_state import file_locks, locks, process_locks
from resilient_scoop.values.user_modules import PACKAGE

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import FrameType

    from resilient_scoop.core.worker.work import Work
    from resilient_scoop.processes.connection import Connection, Context
    from resilient_scoop.processes.starting import ChildSettings

SIGNAL: Final = signal.SIGRTMIN + 3
FRESH_S: Final = 0.2
"""A signal that is handled later than this was not handled in the blocked call: the call has returned."""
FIRST_S, MOST_S = 0.05, 1.0
"""How long a task yields at first, and at most, while no other task continues."""
FREE_S, POLLS_FREE_S = 20.0, 60.0
"""How long no task may continue until the worker ends; longer for polling, which may have another
reason."""
_SETLKW: Final = (7, 38)
_COMMAND_AT: Final = 2
_UNRESPONSIVE_S, _UNRESPONSIVE_LONG_S = 0.25, 1.1
"""A signal that no handler has received for this time arrived in a pause of C code.

The second value is for cases that may not block other tasks. `sqlite3` gives up after 5 s."""
_EXECUTOR: Final = str(Path(__file__).with_name("executor.py"))
_LOCKS: Final = tuple(str(each.__file__) for each in (locks, process_locks, file_locks))
_FUTURES: Final = os.path.join(PACKAGE, "futures", "")  # noqa: PTH118 - compared with names of code, which are strings
"""Code that calls user code (`once`, callbacks, iterables) without the session's lock."""


class SuspendedTask(Protocol):
    """A waiting task, and its condition."""

    @property
    def context(self) -> Context:
        """Its future."""

    @property
    def ready(self) -> Callable[[], bool]:
        """Returns whether it can continue."""

    @property
    def yields(self) -> bool:
        """Whether it waits for a lock."""


class Tasks(Protocol):
    """The worker loop, as far as it is used here."""

    session: Connection
    settings: ChildSettings
    open: list[Work]  # slices with a waiting item and items that have not started
    green: Any  # the loop's own greenlet
    has_fenced: bool  # an ended task may have left a lock held

    @property
    def parked(self) -> Mapping[str, SuspendedTask]:
        """The tasks that wait, by path."""

    def wait(self, ready: Callable[[], bool], until: float | None, *, yields: bool = False) -> bool:
        """Let other tasks run until `ready()` holds (True) or the moment `until` (False)."""


class LockWaits:
    """Detects that the main thread is blocked in a lock, and makes the task yield."""

    def __init__(self, loop: Tasks, tell_user: Callable[[str], None]) -> None:
        self.loop = loop
        self.tell_user = tell_user
        self.waiting = 0  # tasks that yielded
        self.progress = 0  # how often another task has continued
        self._delay_s = FIRST_S
        self._seen: tuple[Any, ...] = ()
        self._seen_at = 0.0
        self._sent_at = 0.0
        self._stuck_at: float | None = None  # time since which no task has continued
        self._spent_s, self._free_s = 0.0, FREE_S
        self._proc = Path(f"/proc/self/task/{threading.get_native_id()}")
        self._main = threading.get_ident()
        self._calls = LOCK_CALLS.get(platform.machine(), {})
        self._polls = Polls(self._main)

    def install(self) -> None:
        """Begin; to be called in the main thread before the user's code runs."""
        signal.signal(SIGNAL, self._heard)
        locks.share(self.run_others)
        loop = self.loop
        file_locks.install(lambda: loop.session.context.path, loop.parked.__contains__)

    def look(self, now: float) -> bool:
        """Make a task yield if the main thread waits for a lock; return whether a signal was sent.

        The deputy thread calls this from time to time.
        """
        loop, on_cpu = self.loop, self.loop.session.record.read()
        if not (loop.parked or loop.has_fenced):
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
        work = loop.session.context.work
        function = None if work is None else work.task.fn
        if self._polls.look(now, on_cpu[:5], function, seen, number):
            if self._polls.is_unresponsive(
                now, _UNRESPONSIVE_S if self._is_anyone_kept() else _UNRESPONSIVE_LONG_S
            ):
                why = "a task waits in C code for a lock that another task of this worker may hold"
                self._end(
                    why, again=loop.settings.may_be_freed and loop.settings.options.workers > 1
                )
            self._count(now, POLLS_FREE_S, counts=self._may_be_stuck())
        elif seen == before and self._is_lock(number, command) and self._is_long(now):
            self._count(now, FREE_S, counts=True)
        else:
            return False
        self._sent_at = time.monotonic()
        self._polls.signaled(now)
        signal.pthread_kill(self._main, SIGNAL)
        return True

    def _is_long(self, now: float) -> bool:
        """Return whether the main thread has been at the same place for long enough."""
        return self._delay_s > FIRST_S or now - self._seen_at >= HOLD_S

    def _count(self, now: float, free_s: float, *, counts: bool) -> None:
        """Record since when yielding does not help, and how long that may last."""
        if self._stuck_at is None and counts:
            self._stuck_at, self._spent_s, self._free_s = now, time.process_time(), free_s

    def _may_be_stuck(self) -> bool:
        """Return whether polling may never succeed: other tasks poll, too, or a holder is gone."""
        return self.loop.has_fenced or any(parked.yields for parked in self.loop.parked.values())

    def _is_anyone_kept(self) -> bool:
        """Return whether the main thread certainly blocks a parked task."""
        loop = self.loop
        machine = loop.session.machine
        if loop.settings.options.workers == 1 or machine.fenced:
            return True
        if any(work.task.parent not in SCRIPTS for work in (*loop.open, *machine.queue)):
            return True
        return any(parked.ready() for parked in loop.parked.values())

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
        """End the worker if yielding has not helped for long (L3)."""
        stuck_at = self._stuck_at
        if stuck_at is None or now - stuck_at < self._free_s:
            return
        spent_s, self._stuck_at = time.process_time() - self._spent_s, None
        if spent_s <= (now - stuck_at) / 10:  # else it computes, perhaps in native code
            self._end(
                "a task waits for a lock that other tasks of this worker hold, and none continues"
            )

    def _end(self, why: str, *, again: bool = False) -> None:
        """End the worker, unless a restart is useless, or would lose calls that must not run twice."""
        loop = self.loop
        self._polls.again()
        if loop.settings.careful and not again:
            return
        works = [parked.context.work for parked in loop.parked.values()]
        works.append(loop.session.context.work)
        if not all(work is None or work.callable.options.idempotent for work in works):
            self.tell_user(
                f"{why}; the worker is not restarted, because it has idempotent=False calls: "
                "`rscoop cancel` ends them"
            )
            return
        self.tell_user(f"{why}: the worker is restarted")
        loop.session.record.idle()
        sys.stderr.flush()
        os._exit(START_AGAIN)

    # The methods below run in the main thread.

    def _heard(self, _number: int, frame: FrameType | None) -> None:
        """Yield, in the middle of a blocked call."""
        self._polls.heard()
        if time.monotonic() - self._sent_at > FRESH_S or getcurrent() is self.loop.green:
            return
        if frame is None or not _is_tasks(frame) or self.loop.session.context.work is None:
            return
        self.run_others(lambda: False, None)

    def run_others(self, ready: Callable[[], bool], until: float | None) -> None:
        """Let other tasks run until `ready()` holds, one of them has continued, or a time limit is over."""
        loop, session = self.loop, self.loop.session
        deadline, progress = session.record.words[DEADLINE], self.progress
        end = time.monotonic() + self._delay_s
        self._delay_s = min(MOST_S, self._delay_s * 2)
        self.waiting += 1
        try:
            loop.wait(
                lambda: ready() or self.progress != progress,
                end if until is None else min(until, end),
                yields=True,
            )
        finally:
            self.waiting -= 1
        session.record.words[DEADLINE] = deadline

    def went_on(self) -> None:
        """Note that another task has continued, and may have released a lock."""
        self.progress += 1
        self._delay_s = FIRST_S
        self._stuck_at = None


def _is_tasks(frame: FrameType | None) -> bool:
    """Return whether a frame is in the task's own code (L1)."""
    is_first = True  # no user code yet: only our code runs
    while frame is not None:
        file = frame.f_code.co_filename
        if file.startswith("<frozen importlib"):
            return False
        if file.startswith(PACKAGE) and file not in _LOCKS:
            if not file.startswith(_FUTURES) or is_first:
                return file == _EXECUTOR
        else:
            is_first = False
        frame = frame.f_back
    return False
