"""`multiprocessing.RLock` that belongs to a task; the original belongs to the thread, which tasks share."""

from __future__ import annotations

import time
from typing import Any

from resilient_scoop.adapters.greenlets import getcurrent
from resilient_scoop.task_state import locks


class _TaskRLock:
    """Mixin before the class of `multiprocessing.synchronize`."""

    _semlock: Any
    _holder: Any = None  # the greenlet that took it last, while it is held

    def _make_methods(self) -> None:
        self.acquire, self.release = self._take, self._release

    def __enter__(self) -> bool:
        return self._take()

    def __exit__(self, *_: object) -> None:
        self._release()

    def _is_free(self) -> bool:
        """Return whether no other task of this thread holds it."""
        holder = self._holder
        return holder is None or holder is getcurrent() or not self._semlock._is_mine()  # noqa: SLF001 - multiprocessing has no public way

    def _take(self, block: bool = True, timeout: float | None = None) -> bool:  # noqa: FBT001, FBT002 - signature of the base class
        until = None if timeout is None else time.monotonic() + max(0.0, timeout)
        while not self._is_free():
            if not block or (until is not None and time.monotonic() >= until):
                return False
            locks.run_others(self._is_free, until)
        left_s = None if until is None else max(0.0, until - time.monotonic())
        if not self._semlock.acquire(block, left_s):
            return False
        self._holder = getcurrent()
        return True

    def _release(self) -> None:
        if not self._is_free():
            raise AssertionError("attempt to release recursive lock not owned by thread")
        if self._semlock._count() == 1:  # noqa: SLF001 - multiprocessing has no public way
            self._holder = None
        self._semlock.release()


def install(module: Any) -> None:
    """Make `multiprocessing.synchronize`, which is already imported, create such locks."""
    body = {"__module__": module.__name__, "__doc__": module.RLock.__doc__}
    module.RLock = type("RLock", (_TaskRLock, module.RLock), body)
