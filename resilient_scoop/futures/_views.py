"""Views of futures for `concurrent.futures` and asyncio, and for other threads than the main one.

A future belongs to the parent that made it: its main thread receives outcomes while it waits, and the
order of what it learns is recorded. Other code waits in its own ways. For it, a future has a view: a
`concurrent.futures.Future` with the same outcome.

  in the script   the view gets its outcome in a thread, whatever the main thread does
  in a task       the parent waits for the outcome when the view is asked for, and the view is made with
                  it; a callback of an asyncio loop is called in a later step of that loop

  VW1 A future has at most one view. Both have the same outcome, the same object in both.
  VW2  Functions of `concurrent.futures` that wait for a view get the future itself.
  VW3  A callback runs once: in the main thread when it waits for futures, or in a thread if the main
       thread waits for something else.
"""

from __future__ import annotations

import concurrent.futures as cf
import contextlib
import threading
import time
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

from resilient_scoop.futures import _shared
from resilient_scoop.futures._pending import Pending, Waited, any_settled, next_settled
from resilient_scoop.processes.here import Process

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterator

    from resilient_scoop.futures._engine import Here

T = TypeVar("T")


class Viewed(Waited, Protocol):
    """A future that has a view."""

    callable: str

    @property
    def is_known(self) -> bool:
        """Whether its parent knows its outcome."""

    def peek(self) -> tuple[Any, BaseException | None] | None:
        """Return the value and the error if the outcome has arrived; callable from any thread."""

    def wait_here(self) -> None:
        """Wait for the outcome in its parent, which must be running here."""

    def claim(self) -> Callable[[], None]:
        """Remove its callbacks; return a function that runs them."""


_PASSES: Final = 3
"""Steps of a task's asyncio loop before it waits: so that its coroutines make their calls first."""
IDLE_S: Final = 0.2
"""So long the main thread computes nothing before another thread runs its callbacks."""
_IDLE_CPU_S: Final = 0.01


class _Told:
    """A waiter of `concurrent.futures` for a view; it gets the future (VW2)."""

    def __init__(self, future: Viewed, waiter: Any) -> None:
        self._future = future
        self._waiter = waiter

    def add_result(self, _view: object) -> None:
        """Report that it has a value."""
        self._waiter.add_result(self._future)

    def add_exception(self, _view: object) -> None:
        """Report that it has an exception."""
        self._waiter.add_exception(self._future)

    def add_cancelled(self, _view: object) -> None:
        """Report that it was canceled."""
        self._waiter.add_cancelled(self._future)


class _Waiters(list[Any]):
    """The waiters for a view; they get the future (VW2)."""

    def __init__(self, future: Viewed) -> None:
        super().__init__()
        self._future = future

    def __iter__(self) -> Iterator[Any]:
        return iter([_Told(self._future, waiter) for waiter in super().__iter__()])


class View(_shared.DeliveredFuture[T]):
    """A future as `concurrent.futures` sees it."""

    def __init__(self, future: Viewed) -> None:
        super().__init__()
        self._waiters = _Waiters(future)
        self._future = future
        self.take()

    def settle(self, value: Any, error: BaseException | None) -> None:
        """Set the outcome once."""
        with contextlib.suppress(cf.InvalidStateError):  # another thread was faster
            if isinstance(error, cf.CancelledError):
                if self.cancel():
                    _shared.tell_of_cancel(self)
            elif error is not None:
                self.set_exception(error)
            else:
                self.set_result(value)

    def take(self) -> bool:
        """Set the outcome if it has arrived; return whether it has."""
        found = self._future.peek()
        if found is None:
            return self.done()
        self.settle(*found)
        return True


def view_of(future: Viewed, at: Here | None) -> View[Any]:
    """Return a view of a future of the parent `at`.

    Raises:
        RuntimeError: this is a thread of a task. UsageError: the run is strict.
    """
    if at is not None and at.session.role != "origin":
        future.wait_here()
    if at is None or future.is_known:
        return View(future)
    _shared.check_order(at.session)  # whether or not the outcome has arrived, which varies
    if future.peek() is not None:
        return View(future)
    calls = _shared.here()
    assert calls is not None, "this is the script's process"
    view: View[Any] = View(future)
    calls.show(future.number, future.settled, view.take, at.parent)
    return view


def is_done_within(view: View[Any], timeout: float | None) -> bool:
    """Wait for a view in a thread; return whether it is done `timeout` seconds after the call."""
    left_s = _shared.deliver_until(view.done, timeout)
    return view.done() or bool(cf.wait([view], left_s).done)


class _TaskLoop:
    """The futures for which coroutines of a task wait.

    A task that waits must leave its process to other tasks, and its loop can't do that. So a step of
    the loop waits for the next outcome, once the coroutines have had some steps to make their calls.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, at: Here) -> None:
        self._loop = loop
        self._pending: Pending[Viewed] = Pending(at)
        self._callbacks: dict[Viewed, list[Callable[[Any], Any]]] = {}
        self._left = 0
        self._is_due = False

    def add(self, future: Viewed, callback: Callable[[Any], Any]) -> None:
        """Call `callback(future)` in a step of the loop after the future has its outcome."""
        if future not in self._callbacks:
            self._callbacks[future] = []
            self._pending.add(future)
        self._callbacks[future].append(callback)
        self._left = _PASSES
        self._go_on()

    def _go_on(self) -> None:
        if self._callbacks and not self._is_due:
            self._is_due = True
            self._loop.call_soon(self._step)

    def _step(self) -> None:
        self._is_due = False
        if self._left > 0:
            self._left -= 1
        else:
            # In a replay, coroutines may get to their calls in other steps.
            for future in next_settled(self._pending, None, any_settled, is_exact=False):
                for callback in self._callbacks.pop(future):
                    self._loop.call_soon(callback, future)
            self._left = _PASSES
        self._go_on()


def call_in_loop(
    loop: asyncio.AbstractEventLoop, at: Here, future: Viewed, callback: Callable[[Any], Any]
) -> None:
    """Call `callback(future)` in a step of the running loop of a task."""
    found: _TaskLoop | None = getattr(loop, "_rscoop_waits", None)
    if found is None:
        found = _TaskLoop(loop, at)
        loop._rscoop_waits = found  # type: ignore[attr-defined]  # noqa: SLF001 - our mark on the user's loop
    found.add(future, callback)


class Overdue:
    """Hands callbacks over to a thread if the main thread waits for something else (VW3).

    Its `look` is called by the deputy thread, outside of turns.
    """

    def __init__(self, at: Here) -> None:
        self._at = at
        self._clock = time.pthread_getcpuclockid(threading.main_thread().ident or 0)
        self._since = time.monotonic()
        self._cpu_s = 0.0
        self._is_reported = False

    def _is_idle(self) -> bool:
        """Return whether the main thread has computed nothing for `IDLE_S`, outside of our waits."""
        now, cpu_s = time.monotonic(), time.clock_gettime(self._clock)
        if self._at.session.is_waiting or cpu_s - self._cpu_s > _IDLE_CPU_S:
            self._since, self._cpu_s = now, cpu_s
        return now - self._since >= IDLE_S

    def look(self) -> None:
        """Hand over settled futures' callbacks, if the main thread has been idle for `IDLE_S`."""
        listeners, session = self._at.context.listeners, self._at.session
        if not self._is_idle() or not listeners:
            return
        is_strict = session.settings.options.stops_at_differences
        with session.turn():
            late = [] if session.is_waiting else listeners.settled_now()
            claimed = [] if is_strict else [(future, future.claim()) for future in late]
            for future, _ in claimed:
                listeners.discard(future)
        if late and is_strict:
            self._report_strict()
        if claimed:
            calls = _shared.here()
            assert calls is not None, "this is the script's process"
            for _, run in claimed:
                calls.run(run)

    def _report_strict(self) -> None:
        if not self._is_reported:
            self._is_reported = True
            Process.tell_user(
                "callbacks of futures are due, and the main thread waits for something else: with "
                "--strict they run only when it waits for futures; wait for the futures themselves, or "
                "run without --strict"
            )


def look_after_callbacks(at: Here) -> None:
    """From now on, run callbacks of the script even if its main thread waits for something else."""
    if at.session.look_idle is None:
        at.session.look_idle = Overdue(at).look
