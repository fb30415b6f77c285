"""Delivery of signals to handlers of user code, never in the middle of our own code.

Python runs a handler between any two instructions of the main thread. A handler that raises there
could leave a message half sent, or a machine between two states. So our handler calls the handlers
of user code, depending on where the main thread is:

  in user code, or a library that it called     the handler runs at once
  in our code                                   the signal is due; a wait is interrupted for it
  where a wait continues or ends                due signals are delivered, and may raise there
  else                                          the deputy sends due signals again, until user code runs

SIGINT reaches user code only if the process sent it to itself, or if the run was interrupted. Batch
systems send it to all processes, and the script must not react to that
(`processes.ignored_signals`).
"""

from __future__ import annotations

import _thread
import functools
import os
import signal
import sys
import threading
from typing import TYPE_CHECKING, Any, Final, TypeVar

from resilient_scoop.processes import ignored_signals

if TYPE_CHECKING:
    import types
    from collections.abc import Callable

T = TypeVar("T")
_PACKAGE: Final = __name__.partition(".")[0] + "."
_GROUND: Final = (f"{_PACKAGE}contrib", f"{_PACKAGE}processes.program_end")
"""Our code in which user code waits: a handler may raise there."""
_MOVERS: Final = tuple(
    f"{_PACKAGE}{room}."
    for room in (
        "adapters", "identity", "journal", "payload", "states", "task_state", "transport", "values",
    )
)  # fmt: skip
"""Rooms that call user code only to move, compare or describe values: no handler runs in there."""
_RETRYING: Final = f"{_PACKAGE}adapters.retrying"
"""Code that pickles and unpickles is ours with everything that it calls; code that retries calls tasks."""
_CALLED: Final = frozenset({"zmq", "contextlib", "threading", "socket", "selectors"})
"""Libraries that both our code and user code call: the caller decides to whom the frame belongs."""

_LOOK: Final = signal.SIGRTMIN + 2
"""A signal of our own: repeating the user's signal could not be distinguished from a second one."""

_set: Final = signal.signal
_get: Final = signal.getsignal
_due: dict[int, Callable[..., Any]] = {}  # signals, and the handlers that user code has set
_own: set[int] = set()  # SIGINT, if this process has sent it to itself


class _SignalState:
    is_open = False  # the main thread waits, and the wait may be interrupted
    is_child = False
    was_interrupted: Callable[[], bool] = staticmethod(lambda: False)


class _BrokenOffError(BaseException):
    """A wait is interrupted for a signal; never leaves `breakable`."""


def install(was_interrupted: Callable[[], bool]) -> None:
    """Take over the delivery of signals to user code in this process.

    `was_interrupted` is called before each SIGINT; it says whether the SIGINT is that of the run,
    and may prepare for it.
    """
    _SignalState.was_interrupted = staticmethod(was_interrupted)
    for name, function in (("signal", _signal), ("getsignal", _getsignal)):
        setattr(signal, name, functools.wraps(getattr(signal, name))(function))
    _default_int_handler.__module__ = "_signal"  # it represents the present handler
    setattr(signal, "default_int_handler", _default_int_handler)  # noqa: B010 - it is a constant
    _set(signal.SIGINT, _Caught(_default_int_handler))
    _set(_LOOK, _look)
    signal.siginterrupt(signal.SIGINT, False)  # noqa: FBT003 - the system call takes it so
    for module, name in ((signal, "raise_signal"), (_thread, "interrupt_main")):
        setattr(module, name, _marking(getattr(module, name)))
    os.kill = _marking_kill(os.kill)
    for name in ("setitimer", "alarm"):
        setattr(signal, name, _after_due_handlers(getattr(signal, name)))


class _Caught:
    """A handler of user code, called depending on where the main thread is."""

    def __init__(self, handler: Callable[..., Any]) -> None:
        self.handler = handler

    def __call__(self, number: int, frame: types.FrameType | None) -> None:
        """Handle a signal that user code handles."""
        if _SignalState.is_child or not _is_ours(frame):
            _deliver(number, self.handler, frame)
            return
        _due[number] = self.handler
        if _SignalState.is_open:
            _SignalState.is_open = False
            raise _BrokenOffError


def _signal(signalnum: int, handler: Any) -> Any:
    deliver_at(sys._getframe(1))  # noqa: SLF001 - who calls is what matters
    plain = not callable(handler) or isinstance(handler, _Caught)
    if not plain and not str(getattr(handler, "__module__", "")).startswith(_PACKAGE):
        handler = _Caught(handler)
    return _users(_set(signalnum, handler))


def _getsignal(signalnum: int) -> Any:
    return _users(_get(signalnum))


def _users(handler: Any) -> Any:
    return handler.handler if isinstance(handler, _Caught) else handler


def deliver_at(caller: types.FrameType) -> None:
    """Deliver due signals at a call of user code, in its main thread."""
    if _due and threading.current_thread() is threading.main_thread() and not _is_ours(caller):
        deliver_due()


def _default_int_handler(signalnum: int, frame: types.FrameType | None, /) -> None:
    """Raise KeyboardInterrupt, as Python's own handler of SIGINT does."""
    del signalnum, frame
    raise KeyboardInterrupt


def _after_due_handlers(call: Callable[..., Any]) -> Callable[..., Any]:
    """Return a version of a call that first runs the handlers of due signals, as in plain Python."""

    @functools.wraps(call)
    def called(*args: Any) -> Any:
        deliver_at(sys._getframe(1))  # noqa: SLF001 - who calls is what matters
        return call(*args)

    return called


def _marking(send: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(send)
    def marked(signum: int = signal.SIGINT, /) -> Any:
        if signum == signal.SIGINT:
            _own.add(signum)
        found = send(signum)
        deliver_at(sys._getframe(1))  # noqa: SLF001 - who calls is what matters
        return found

    return marked


def _marking_kill(kill: Callable[[int, int], None]) -> Callable[[int, int], None]:
    @functools.wraps(kill)
    def marked(pid: int, sig: int, /) -> None:
        if sig == signal.SIGINT and pid in (os.getpid(), 0, -os.getpgrp()):
            _own.add(sig)
        kill(pid, sig)
        deliver_at(sys._getframe(1))  # noqa: SLF001 - who calls is what matters

    return marked


def _is_ours(frame: types.FrameType | None) -> bool:
    """Return whether the main thread is in our code, or in code that this has called to move values."""
    verdict: bool | None = None
    while frame is not None:
        name = frame.f_globals.get("__name__") or ""
        if name.startswith(_MOVERS) and name != _RETRYING:
            return True
        if verdict is None and name.startswith(_PACKAGE):
            verdict = not name.startswith(_GROUND)
        elif verdict is None and name.partition(".")[0] not in _CALLED:
            verdict = False
        frame = frame.f_back
    return verdict is not False


def _deliver(number: int, handler: Callable[..., Any], frame: types.FrameType | None) -> None:
    _due.pop(number, None)
    if number == signal.SIGINT and not _SignalState.is_child:
        own = number in _own
        _own.discard(number)
        if not _SignalState.was_interrupted() and not own:
            ignored_signals.note()
            return
    handler(number, frame)


def note_due(number: int) -> None:
    """Deliver a signal at the next place where it may raise, if user code handles it."""
    caught = _get(number)
    if isinstance(caught, _Caught):
        _due[number] = caught.handler


def deliver_due() -> None:
    """Call the handlers of due signals; they may raise. Only for the main thread, without a lock."""
    while _due:
        frame: types.FrameType | None = sys._getframe(1)  # noqa: SLF001 - handlers are given frames
        while frame is not None and frame.f_back is not None and _is_ours(frame):
            frame = frame.f_back
        number = next(iter(_due))
        _deliver(number, _due[number], frame)


def drop_due() -> None:
    """Forget due signals: the code that they were meant for has ended."""
    _due.clear()


def send_due() -> None:
    """Make the main thread check for due signals, also in a system call; called by the deputy."""
    if _due:
        signal.pthread_kill(threading.main_thread().ident or 0, _LOOK)


def _look(_number: int, frame: types.FrameType | None) -> None:
    """Check whether due signals can be delivered now."""
    if not _is_ours(frame):
        deliver_due()
    elif _due and _SignalState.is_open:
        _SignalState.is_open = False
        raise _BrokenOffError


def breakable(wait: Callable[[], T]) -> T | None:
    """Return the result of `wait`, or None if a signal became due: deliver it, and wait again.

    Only for the main thread, and not nested.
    """
    try:
        _SignalState.is_open = True
        return wait()
    except _BrokenOffError:
        return None
    finally:
        _SignalState.is_open = False


def become_child() -> None:
    """Deliver everything at once from now on: this process is a forked child."""
    _SignalState.is_child = True
    _SignalState.is_open = False
    _due.clear()
