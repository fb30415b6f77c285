"""Detect whether a task polls: tries something repeatedly, with pauses, until it succeeds.

`filelock`, `acquire(timeout=...)` in a loop, and `sqlite3` with a locked database do this. A task
polls if it is seen in several pauses for some seconds, and hardly uses the CPU. One long pause is
not polling.
"""

from __future__ import annotations

import platform
import time
from typing import Final

LOCK_CALLS: Final[dict[str, dict[int, str]]] = {
    "x86_64": {202: "futex", 449: "futex", 73: "flock", 72: "fcntl", 65: "semop", 220: "semop"},
    "aarch64": {98: "futex", 449: "futex", 32: "flock", 25: "fcntl", 193: "semop", 192: "semop"},
}
"""System calls in which a thread waits for a lock."""
_PAUSES: Final[dict[str, frozenset[int]]] = {
    # nanosleep, clock_nanosleep, select, pselect6, poll, ppoll, epoll_wait, epoll_pwait, epoll_pwait2
    "x86_64": frozenset({35, 230, 23, 270, 7, 271, 232, 281, 441}),
    "aarch64": frozenset({101, 115, 72, 73, 22, 441}),
}
HOLD_S: Final = 0.3
"""How long the main thread must have waited for one lock, or paused in a function that is known to poll."""
POLL_S: Final = 3.0
"""The same for a function that is not known to poll."""
_PAUSES_MIN: Final = 3
_CPU: Final = 0.25
"""A task that uses a larger share of a CPU computes."""


class Polls:
    """Whether the running task tries something repeatedly, with pauses."""

    def __init__(self, main: int) -> None:
        machine = platform.machine()
        self._clock = time.pthread_getcpuclockid(main)
        self._pauses = _PAUSES.get(machine, frozenset())
        self._calls = self._pauses | LOCK_CALLS.get(machine, {}).keys()
        self._task: object = None
        self._pause: object = None  # the last pause that was seen
        self._count = 0  # how many pauses were seen
        self._since = self._spent_s = self._all_spent_s = 0.0
        self._known: object = None  # a function that polls
        self._signaled_at: float | None = None  # since when no handler has received a signal

    def look(self, now: float, task: object, function: object, pause: object, number: int) -> bool:
        """Return whether the main thread, in a system call, is in a pause of a polling task."""
        if task != self._task:
            self._task = task
            self._begin(now)
        if number not in self._calls:
            self._signaled_at = None
            return False
        if pause != self._pause:
            self._pause, self._count = pause, self._count + 1
        since_s = now - self._since
        if time.clock_gettime(self._clock) - self._spent_s > max(since_s, HOLD_S) * _CPU:
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
        self._count, self._since, self._signaled_at = 0, now, None
        self._spent_s = time.clock_gettime(self._clock)
        self._all_spent_s = time.process_time()

    def signaled(self, now: float) -> None:
        """Record that a signal is sent during a pause."""
        if self._signaled_at is None:
            self._signaled_at = now

    def heard(self) -> None:
        """Record that a handler has received it."""
        self._signaled_at = None

    def is_unresponsive(self, now: float, after_s: float) -> bool:
        """Return whether the pauses are in C code, in which no handler runs."""
        if self._signaled_at is None or now - self._signaled_at < after_s or not self._is_asleep:
            return False
        return time.process_time() - self._all_spent_s < (now - self._since) * _CPU

    def again(self) -> None:
        """Start again, for another task."""
        self._task = None
