"""`threading.RLock` for a process whose one thread runs many tasks, each in a greenlet.

A reentrant lock belongs to a thread. Waiting tasks share one thread, so each would own a lock that
another one holds. Here it belongs to the greenlet: a task that wants a lock held by another task
waits until it is released, and others run during that time. Conditions and semaphores are based on
this. (`task_state.process_locks` has the one of `multiprocessing`.)
"""

from __future__ import annotations

import threading
import time
from _thread import RLock as _ThreadRLock
from typing import TYPE_CHECKING, Any

from resilient_scoop.adapters.greenlets import getcurrent

if TYPE_CHECKING:
    from collections.abc import Callable


class _Waits:
    run_others: Callable[[Callable[[], bool], float | None], None] | None = None


class TaskRLock(_ThreadRLock):  # type: ignore[misc]  # a private class without types
    """A reentrant lock that belongs to a task."""

    _holder: Any = None  # the greenlet that holds it, if any
    _depth = 0

    def _is_anothers(self) -> bool:
        """Return whether another task of this thread holds it."""
        holder = self._holder
        return holder is not None and holder is not getcurrent() and _is_threads(self)

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:  # noqa: FBT001, FBT002 - signature of the base class
        """Acquire it, waiting for other tasks and threads as requested."""
        if self._holder is not None and self._is_anothers():
            until = time.monotonic() + timeout if timeout >= 0 else None
            if not blocking or not self._wait(until):
                return False
            timeout = timeout if until is None else max(0.0, until - time.monotonic())
        if not _acquire(self, blocking, timeout):
            return False
        self._holder = getcurrent()
        self._depth += 1
        return True

    __enter__ = acquire

    def release(self) -> None:
        """Release it once.

        Raises:
            RuntimeError: this task does not hold it.
        """
        if self._holder is not getcurrent():
            raise RuntimeError("cannot release un-acquired lock")
        self._depth -= 1
        if not self._depth:
            self._holder = None
        _release(self)

    def __exit__(self, *_: object) -> None:
        self.release()

    def _wait(self, until: float | None) -> bool:
        while self._is_anothers():
            if until is not None and time.monotonic() >= until:
                return False
            run_others(lambda: self._holder is None, until)
        return True

    # Used by `threading.Condition`.

    def _is_owned(self) -> bool:
        return self._holder is getcurrent()

    def _release_save(self) -> Any:
        depth, self._depth, self._holder = self._depth, 0, None
        return depth, super()._release_save()  # type: ignore[misc]  # a private class without types

    def _acquire_restore(self, state: Any) -> None:
        self._wait(None)
        super()._acquire_restore(state[1])  # type: ignore[misc]  # a private class without types
        self._holder, self._depth = getcurrent(), state[0]


_acquire: Any = _ThreadRLock.acquire
_release: Any = _ThreadRLock.release
_is_threads: Any = vars(_ThreadRLock)["_is_owned"]


def install() -> None:
    """Make `threading.RLock()` create such locks, in all processes that import the script."""
    vars(threading)["_CRLock"] = TaskRLock


def share(run_others: Callable[[Callable[[], bool], float | None], None]) -> None:
    """Enable sharing of this thread by tasks; `run_others(ready, until)` lets others run."""
    _Waits.run_others = run_others


def run_others(ready: Callable[[], bool], until: float | None = None) -> None:
    """Let other tasks run until `ready()` holds, or until a time limit."""
    assert _Waits.run_others is not None, "only tasks share a thread"
    _Waits.run_others(ready, until)
