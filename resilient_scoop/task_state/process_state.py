"""State of the whole process that each task has as its own, such as the working directory.

Waiting tasks share a worker process. `save` is called when one starts to wait, `restore` when it
continues. In between, and for every new task, the process is in its *base* state: the state after
the worker had imported the script.

  PS1  A task starts from the base. Its changes are undone before the next one starts.
  PS2  A task that waited finds its own state again.
  PS3  A change by the import of a module is a change of the base, whichever task imports it first.

`ASPECTS` is the only list. To save more state, add an `Aspect` to it. The order matters if one
aspect depends on another (the time zone on the environment). Context variables, including decimal
contexts, follow the greenlet; each task starts with those of the base.
"""

from __future__ import annotations

import contextvars
import decimal
import signal
import sys
import time
import warnings
from typing import Any, Final, NamedTuple

from resilient_scoop.adapters.greenlets import getcurrent
from resilient_scoop.identity import process_aspects
from resilient_scoop.task_state import generators, overlay, rng
from resilient_scoop.task_state.asyncio_state import ASYNCIO

_get_context: Final = decimal.getcontext  # `process_settings` replaces them
_set_context: Final = decimal.setcontext
_ALARM: Final = process_aspects.Alarm()
_DIRECTORY: Final = process_aspects.Directory()
ASPECTS: Final[list[process_aspects.Aspect]] = [
    _DIRECTORY,
    process_aspects.Environment(),
    process_aspects.TimeZone(),
    process_aspects.Attributes(
        "standard streams", sys,
        ("stdout", "stderr", "stdin", "argv", "excepthook", "displayhook", "unraisablehook"),
    ),
    process_aspects.ListOf("sys.path", sys, "path"),
    process_aspects.Attributes(
        "display of warnings", warnings, ("showwarning", "_showwarnmsg_impl", "formatwarning")
    ),
    process_aspects.Warnings(),
    process_aspects.Handlers(),
    _ALARM,
    *ASYNCIO,
    process_aspects.Umask(),
    process_aspects.InterpreterLimits(),
    process_aspects.SocketTimeout(),
    process_aspects.Locale(),
    process_aspects.SklearnConfig(),
]  # fmt: skip


class SavedProcessState(NamedTuple):
    """The saved state of a waiting task; `values` is None if it equals the base."""

    streams: rng.Streams
    generators: list[Any]
    overlay: overlay.Overlay | None
    values: list[Any] | None

    @property
    def alarm_at(self) -> float | None:
        """When an alarm of the task is due, in the time of `time.monotonic`."""
        if self.values is None:
            return None
        alarm = self.values[ASPECTS.index(_ALARM)]
        return None if alarm is None else float(alarm[0])


class _BaseState:
    values: list[Any] = []  # noqa: RUF012 - of the process, which there is one of
    tests: list[Any] = []  # noqa: RUF012 - one list for the process
    context: contextvars.Context | None = None
    number: decimal.Context | None = None


def take_base() -> None:
    """Take the present state of the process as the base."""
    _DIRECTORY.hold()
    _BaseState.values = snapshot()
    _BaseState.tests = [aspect.is_at for aspect in ASPECTS]
    _BaseState.context = contextvars.copy_context()
    _BaseState.number = _get_context().copy()


def _is_at_base() -> bool:
    for is_at, value in zip(_BaseState.tests, _BaseState.values):  # noqa: B905, SIM110 - 2 µs for each task
        if not is_at(value):
            return False
    return True


def _write(values: list[Any]) -> None:
    for aspect, value in zip(ASPECTS, values, strict=True):
        if not aspect.is_at(value):
            aspect.write(value)


def fresh() -> None:
    """Set the base state for a new task (PS1)."""
    if not _BaseState.values:
        return
    if not _is_at_base():
        _write(_BaseState.values)
    assert _BaseState.context is not None, "the base has been taken"
    assert _BaseState.number is not None, "the base has been taken"
    getcurrent().gr_context = _BaseState.context.copy()
    _set_context(_BaseState.number.copy())


def save() -> SavedProcessState:
    """Return the state of the running task, which starts to wait, and set the base state."""
    streams, held, overlaid = rng.save(), generators.save(), overlay.active()
    generators.rest()
    if not _BaseState.values or _is_at_base():
        return SavedProcessState(streams, held, overlaid, None)
    values = snapshot()
    _write(_BaseState.values)
    return SavedProcessState(streams, held, overlaid, values)


def restore(saved: SavedProcessState, *, ends: bool = False) -> None:
    """Restore what `save` returned (PS2). In a task that `ends`, alarms are no longer delivered."""
    if _BaseState.values:
        _write(_BaseState.values if saved.values is None else saved.values)
    overlay.activate(saved.overlay)
    rng.restore(saved.streams)
    generators.restore(saved.generators)
    if not ends and saved.alarm_at is not None and saved.alarm_at <= time.monotonic():
        signal.raise_signal(signal.SIGALRM)  # last, because its handler may raise


def snapshot() -> list[Any]:
    """Return a snapshot of everything."""
    return [aspect.read() for aspect in ASPECTS]


def imported(before: list[Any]) -> None:
    """Make the changes of an import since a `snapshot` part of the base (PS3)."""
    for at, aspect in enumerate(ASPECTS):
        if not _BaseState.values or aspect.is_at(before[at]):
            continue
        base, now = _BaseState.values[at], aspect.read()
        if before[at] == base:
            _BaseState.values[at] = now
        elif isinstance(aspect, process_aspects.Environment | process_aspects.ListOf):
            _BaseState.values[at] = aspect.with_change(base, before[at], now)
