"""`threading.local` in a process whose one thread runs many tasks.

A task that waits takes along what it has in such objects, as if it had a thread of its own. Others find
there what the import of the script left, or what a task that has ended left for the next one. So a
connection or a buffer that is kept per thread stays of use from task to task, and no two tasks that are
under way have the same one.

Only objects that modules make while they are imported are seen to: what a task makes belongs to it anyway.
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
"""Modules whose own are each task's already (`task_state.asyncio_state`)."""
Contents = list[tuple[Any, dict[str, Any]]]
"""What tasks have in these objects."""


class _Known(msgspec.Struct, eq=False):
    """One such object, what it is made with, and what the import of modules has left in it."""

    ref: weakref.ref[Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    base: dict[str, Any] | None = None


class _State:
    is_importing = (
        False  # in the script's process, where no tasks run, only while a module is executed
    )
    main = 0
    known: list[_Known] = []  # noqa: RUF012 - of the process, which there is one of
    idle: list[Contents] = []  # noqa: RUF012 - left by tasks that have ended


class local(_local):  # noqa: N801 - as it is named there
    """Thread-local data, which a task that waits takes along."""

    def __new__(cls, /, *args: Any, **kwargs: Any) -> Self:
        """Make one, and note it if a module does."""
        made = super().__new__(cls, *args, **kwargs)
        is_main = threading.get_ident() == _State.main
        if _State.is_importing and is_main and not cls.__module__.startswith(_SEEN_TO):
            _State.known.append(_Known(weakref.ref(made), args, kwargs))
        return made


local.__module__, local.__qualname__, local.__name__ = "_thread", "_local", "_local"


def install() -> None:
    """Have `threading.local` be ours, before anything of the user's is imported; in the main thread.

    So it is in all processes that import the script, since functions are compared by what they refer to.
    """
    _State.main = threading.get_ident()
    vars(threading)["local"] = local


def importing(begins: bool) -> bool:  # noqa: FBT001
    """Note that modules are imported, or are not any more; return what was the case before."""
    before, _State.is_importing = _State.is_importing, begins
    if not begins:
        _take_base()
    return before


def _take_base() -> None:
    """Take what is in the objects for what every task is to find."""
    _State.known = [known for known in _State.known if known.ref() is not None]
    for known in _State.known:
        if known.base is None:
            known.base = {name: _own(value) for name, value in vars(known.ref()).items()}


def _own(value: Any) -> Any:
    return copy.copy(value) if type(value) in _CONTAINERS else value


def _contents() -> Contents:
    made = [known.ref() for known in _State.known]
    return [(each, dict(vars(each))) for each in made if each is not None]


def leave() -> Contents | None:
    """Return what the running task has in such objects, and put in what another one is to find."""
    if not _State.known:
        return None
    mine = _contents()
    if _State.idle:
        _put(_State.idle.pop())
    else:
        for known in _State.known:
            _begin(known)
    return mine


def enter(contents: Contents | None) -> None:
    """Put back what `leave` returned; what is there belongs to no task that is under way."""
    if contents is not None:
        _State.idle.append(_contents())
        _put(contents)


def drop() -> None:
    """Forget what is there, of a task that was ended in the middle of a wait."""
    if _State.idle:
        _put(_State.idle.pop())


def forget() -> None:
    """Drop all that is kept for tasks to come, because the process ends."""
    _State.idle.clear()
    _State.known.clear()


def _put(contents: Contents) -> None:
    for made, values in contents:
        now: dict[str, Any] = made.__dict__
        now.clear()
        now.update(values)


def _begin(known: _Known) -> None:
    """Put in what a new thread would find, and what the import of modules has put in besides."""
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
