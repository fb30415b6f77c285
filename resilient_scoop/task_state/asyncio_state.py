"""Per-thread state of `asyncio`: each task has its own, also while it waits inside a running loop.

A call of `futures` inside a coroutine blocks its loop, as any blocking call does. Other tasks of
the worker may run their own loops during that time.
"""

from __future__ import annotations

import sys
from typing import Any, Final

from resilient_scoop.adapters.loaded import loaded

NO_LOOP: Final = (None, None, (None, None))
"""The snapshot of a thread in which no loop is running."""


class RunningLoop:
    """The running loop, its running task, and the hooks for asynchronous generators."""

    name = "running asyncio loop"

    def is_at(self, value: Any) -> bool:
        """Return whether the process is in the state of a snapshot."""
        module = loaded("asyncio.events")
        if module is None:
            return value[0] is None
        return module._get_running_loop() is value[0] and sys.get_asyncgen_hooks() == value[2]  # noqa: SLF001 - asyncio has no public way

    def read(self) -> Any:
        """Return a snapshot: (loop, task, hooks)."""
        module = loaded("asyncio.events")
        loop = None if module is None else module._get_running_loop()  # noqa: SLF001 - asyncio has no public way
        return loop, None if loop is None else _task_of(loop), sys.get_asyncgen_hooks()

    def write(self, value: Any) -> None:
        """Restore a snapshot."""
        module = loaded("asyncio.events")
        sys.set_asyncgen_hooks(*value[2])
        if module is None:
            return
        before = module._get_running_loop()  # noqa: SLF001 - asyncio has no public way
        if before is not None:
            _set_task(before, None)
        module._set_running_loop(value[0])  # noqa: SLF001 - asyncio has no public way
        if value[0] is not None:
            _set_task(value[0], value[1])


def _swap() -> Any:
    """Return the function that sets the running task of a loop; Python 3.11 keeps the task in it."""
    return getattr(loaded("asyncio.tasks"), "_swap_current_task", None)


def _task_of(loop: Any) -> Any:
    """Return the running task of a loop, None between two steps."""
    return None if _swap() is None else loaded("asyncio.tasks").current_task(loop)


def _set_task(loop: Any, task: Any) -> None:
    """Set the running task of a loop; Python 3.12.1 raises a KeyError if none is set where none is."""
    if _swap() is not None and (task is not None or _task_of(loop) is not None):
        _swap()(loop, task)


class CurrentLoop:
    """The loop that `asyncio.set_event_loop` has set for this thread."""

    name = "asyncio loop of the thread"

    def is_at(self, value: dict[str, Any]) -> bool:
        """Return whether the process is in the state of a snapshot."""
        return self.read() == value if "asyncio.events" in sys.modules else not value

    def read(self) -> dict[str, Any]:
        """Return a snapshot."""
        module = loaded("asyncio.events")
        policy = getattr(module, "_event_loop_policy", None)
        local = getattr(policy, "_local", None)
        return {} if local is None else dict(vars(local))

    def write(self, value: dict[str, Any]) -> None:
        """Restore a snapshot."""
        module = loaded("asyncio.events")
        local = getattr(getattr(module, "_event_loop_policy", None), "_local", None)
        if local is not None:
            vars(local).clear()
            vars(local).update(value)


ASYNCIO: Final = (RunningLoop(), CurrentLoop())
