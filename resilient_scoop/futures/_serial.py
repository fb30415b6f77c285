"""The same calls in a process that `rscoop` did not start: computed at once, one after another."""

from __future__ import annotations

import itertools
import os
import shlex
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from resilient_scoop import ids
from resilient_scoop.futures._future import Future
from resilient_scoop.task_state.asyncio_state import NO_LOOP, RunningLoop

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

_PACKAGE: Final = str(Path(__file__).parents[1]) + os.sep
_WARNED: list[bool] = []
_calls = itertools.count()
_loop = RunningLoop()
running: list[SerialCall] = []
"""Calls that are being computed, the innermost last."""


class SerialCall(NamedTuple):
    """A call that is being computed."""

    path: str
    function: str


class SerialItem:
    """A function whose calls are items of one batch."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self._name = getattr(function, "__qualname__", type(function).__name__)
        self.call = next(_calls)
        self._indexes = itertools.count()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function."""
        path = ids.item_path(ids.ROOT, self.call, next(self._indexes))
        running.append(SerialCall(path, self._name))
        before = _loop.read()
        try:
            # If a coroutine makes the call, the function may run its own loop.
            if before != NO_LOOP:
                _loop.write(NO_LOOP)
            return self._function(*args, **kwargs)
        finally:
            running.pop()
            if before != NO_LOOP:
                _loop.write(before)


def warn_once() -> None:
    """Report, once per process, how to start the script in parallel."""
    if not _WARNED:
        _WARNED.append(True)
        warnings.warn(_how_to_start(), RuntimeWarning, stacklevel=_callers_level())


def _callers_level() -> int:
    """Return the `stacklevel` of the user's line that made the call."""
    level, frame = 1, sys._getframe(1)  # noqa: SLF001 - documented, for CPython
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        level, frame = level + 1, frame.f_back
    return level


def _how_to_start() -> str:
    run = os.environ.get("RSCOOP_RUN_ID")
    if run:
        return (
            f"futures run one after another in this process: it was started by run {run}, not as one of "
            "its workers; make these calls in the script or in its tasks"
        )
    if "ipykernel" in sys.modules:
        return (
            "futures run one after another in a notebook; to run them in parallel, journaled, open a "
            'session: `from resilient_scoop import Session`, `session = Session(run="NAME")`, then '
            "`session.map` and `session.submit`, or Executor(session=session)"
        )
    return (
        "futures run one after another in this process; start it with "
        f"`rscoop run {_script()}` to run them in parallel, journaled"
    )


def _script() -> str:
    """Return what names the program on the command line of `rscoop run`."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    if (
        spec is not None and spec.name != "__main__"
    ):  # `python -m`; a folder and an archive are paths
        return f"-m {spec.name.removesuffix('.__main__')}"
    if sys.argv[0] in {"", "-c"}:
        return "script.py"
    return shlex.quote(sys.argv[0])


def mapped(function: Callable[..., Any], iterables: tuple[Iterable[Any], ...]) -> Iterator[Any]:
    """Return an iterator that calls the function when it is read; an error ends it."""
    if not iterables:
        raise TypeError("map() must have at least one iterable")
    return _values(SerialItem(function), zip(*iterables, strict=False))


def _values(item: SerialItem, rows: Iterator[tuple[Any, ...]]) -> Iterator[Any]:
    for row in rows:
        yield item(*row)


def submit(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Future[Any]:
    """Call the function now; return a future that is done."""
    if not callable(function):
        raise TypeError(f"{function!r} ({type(function).__name__}) is not callable")
    warn_once()
    item = SerialItem(function)
    name = getattr(function, "__qualname__", repr(function))
    future: Future[Any] = Future(None, None, name, number=item.call)
    try:
        value = item(*args, **kwargs)
    except KeyboardInterrupt:  # of the user
        raise
    except BaseException as error:  # user code: if it raises, the future gets the exception
        future.settle(None, error)
    else:
        future.settle(value, None)
    return future
