"""`multiprocessing.RLock` as a task's own; it belongs to the thread, which tasks share."""

from __future__ import annotations

import time
from typing import Any

from resilient_scoop.adapters.greenlets import getcurrent
from resilient_scoop.task_state import locks


class _TaskRLock:
    """What stands in front of the class of `multiprocessing.synchronize`."""

    _semlock: Any
    _holder: Any = None  # the greenlet that took it last, while it is held

    def _make_methods(self) -> None:
        self.acquire, self.release = self._take, self._let_go

    def __enter__(self) -> bool:
        return self._take()

    def __exit__(self, *_: object) -> None:
        self._let_go()

    def _is_free(self) -> bool:
        """Tell whether no other task of this thread holds it."""
        holder = self._holder
        return holder is None or holder is getcurrent() or not self._semlock._is_mine()  # noqa: SLF001

    def _take(self, block: bool = True, timeout: float | None = None) -> bool:  # noqa: FBT001, FBT002
        until = None if timeout is None else time.monotonic() + max(0.0, timeout)
        while not self._is_free():
            if not block or (until is not None and time.monotonic() >= until):
                return False
            locks.give_way(self._is_free, until)
        left_s = None if until is None else max(0.0, until - time.monotonic())
        if not self._semlock.acquire(block, left_s):
            return False
        self._holder = getcurrent()
        return True

    def _let_go(self) -> None:
        if not self._is_free():
            raise AssertionError("attempt to release recursive lock not owned by thread")
        if self._semlock._count() == 1:  # noqa: SLF001
            self._holder = None
        self._semlock.release()


def install(module: Any) -> None:
    """Have `multiprocessing.synchronize`, which has been imported, make such locks."""
    body = {"__module__": module.__name__, "__doc__": module.RLock.__doc__}
    module.RLock = type("RLock", (_TaskRLock, module.RLock), body)
