"""`threading.local` in a process whose one thread runs many tasks.

A waiting task keeps its data in such objects, as if it had its own thread. Other tasks find the
data that the import of the script left, or that an ended task left for the next one. So a
connection or a buffer that is kept per thread can be reused from task to task, and no two
unfinished tasks have the same one.

Only objects that modules make during their import are handled: an object made by a task belongs to
it anyway.
"""

from __future__ import annotations

import copy
import threading
import weakref
from _thread import _local
from collections import OrderedDict, defaultdict, deque
from typing import Any, Final, Self

import msgspec

_CONTAINERS: Final = (dict, list, set, bytearray, deque, defaultdict, OrderedDict)
_SEEN_TO: Final = ("asyncio",)
"""Modules whose objects are handled elsewhere (`task_state.asyncio_state`)."""
Contents = list[tuple[Any, dict[str, Any]]]
"""The data of tasks in these objects."""


class _KnownLocal(msgspec.Struct, eq=False):
    """One such object, its arguments, and the data that imports left in it."""

    ref: weakref.ref[Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    base: dict[str, Any] | None = None


class _LocalsState:
    is_importing = False  # in the script's process, which runs no tasks: only during imports
    main = 0
    known: list[_KnownLocal] = []  # noqa: RUF012 - of the process, which there is one of
    idle: list[Contents] = []  # noqa: RUF012 - left by tasks that have ended


class local(_local):  # noqa: N801 - as it is named there
    """Thread-local data, which a waiting task keeps."""

    def __new__(cls, /, *args: Any, **kwargs: Any) -> Self:
        """Make one, and register it if a module makes it."""
        made = super().__new__(cls, *args, **kwargs)
        is_main = threading.get_ident() == _LocalsState.main
        if _LocalsState.is_importing and is_main and not cls.__module__.startswith(_SEEN_TO):
            _LocalsState.known.append(_KnownLocal(weakref.ref(made), args, kwargs))
        return made


local.__module__, local.__qualname__, local.__name__ = "_thread", "_local", "_local"


def install() -> None:
    """Replace `threading.local`, before user code is imported; in the main thread.

    Done in all processes that import the script, because functions are compared by what they refer to.
    """
    _LocalsState.main = threading.get_ident()
    vars(threading)["local"] = local


def importing(begins: bool) -> bool:  # noqa: FBT001 - a state that is set
    """Set whether modules are being imported; return the former value."""
    before, _LocalsState.is_importing = _LocalsState.is_importing, begins
    if not begins:
        _take_base()
    return before


def _take_base() -> None:
    """Take the present data as the base for every task."""
    _LocalsState.known = [known for known in _LocalsState.known if known.ref() is not None]
    for known in _LocalsState.known:
        if known.base is None:
            known.base = {name: _own(value) for name, value in vars(known.ref()).items()}


def _own(value: Any) -> Any:
    return copy.copy(value) if type(value) in _CONTAINERS else value


def _contents() -> Contents:
    made = [known.ref() for known in _LocalsState.known]
    return [(each, dict(vars(each))) for each in made if each is not None]


def leave() -> Contents | None:
    """Return the data of the running task, and set the data for another one."""
    if not _LocalsState.known:
        return None
    mine = _contents()
    if _LocalsState.idle:
        _put(_LocalsState.idle.pop())
    else:
        for known in _LocalsState.known:
            _begin(known)
    return mine


def enter(contents: Contents | None) -> None:
    """Restore what `leave` returned; the present data belongs to no unfinished task."""
    if contents is not None:
        _LocalsState.idle.append(_contents())
        _put(contents)


def drop() -> None:
    """Drop the data of a task that was ended during a wait."""
    if _LocalsState.idle:
        _put(_LocalsState.idle.pop())


def forget() -> None:
    """Drop all data kept for later tasks, because the process ends."""
    _LocalsState.idle.clear()
    _LocalsState.known.clear()


def _put(contents: Contents) -> None:
    for made, values in contents:
        now: dict[str, Any] = made.__dict__
        now.clear()
        now.update(values)


def _begin(known: _KnownLocal) -> None:
    """Set the data of a new thread, plus the data that imports have added."""
    made, base = known.ref(), known.base or {}
    if made is None:
        return
    now: dict[str, Any] = made.__dict__
    now.clear()
    if type(made).__init__ is not object.__init__:
        type(made).__init__(made, *known.args, **known.kwargs)
    for name, value in base.items():
        if type(now.get(name)) is not type(value) or type(value).__module__ == "builtins":
            now[name] = _own(value)
