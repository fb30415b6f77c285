"""Find the part of an object that cannot be pickled, to name it: `args[1].cache.lock`.

Runs only after pickling has failed, and is bounded: it checks at most `_LOOKS_MAX` parts.
"""

from __future__ import annotations

import functools
import types
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, Final, NamedTuple

_LOOKS_MAX: Final = 20_000
_DEPTH_MAX: Final = 60
ADVICE: Final = "__rscoop_advice__"
_LEAVE_OUT: Final = "make it inside the function, or leave it out with __getstate__"
_SEND_STATE: Final = "send is_set() of it"
_SEND_CONTENT: Final = "send a list of what it holds"
_HINTS: Final = {
    "_thread.lock": _LEAVE_OUT,
    "_thread.RLock": _LEAVE_OUT,
    "generator": "send list(...) of it",
    "coroutine": "await it first, and send its value",
    "_io.TextIOWrapper": "send the path and open the file inside the function",
    "_io.BufferedReader": "send the path and open the file inside the function",
    "_io.BufferedWriter": "send the path and open the file inside the function",
    "_io.BufferedRandom": "send what it contains, or the path of a file, and open it inside the function",
    "_csv.reader": "send the rows that it gives",
    "socket.socket": "send the address and connect inside the function",
    "memoryview": "send bytes(...) of it",
    "sqlite3.Connection": "send the path and connect inside the function",
    "threading.Event": _SEND_STATE,
    "multiprocessing.synchronize.Event": _SEND_STATE,
    "queue.Queue": _SEND_CONTENT,
    "queue.LifoQueue": _SEND_CONTENT,
    "queue.PriorityQueue": _SEND_CONTENT,
    "_queue.SimpleQueue": _SEND_CONTENT,
    "multiprocessing.queues.Queue": _SEND_CONTENT,
    "multiprocessing.queues.JoinableQueue": _SEND_CONTENT,
    "multiprocessing.queues.SimpleQueue": _SEND_CONTENT,
    "multiprocessing.sharedctypes.Synchronized": "send its value",
    "multiprocessing.sharedctypes.SynchronizedArray": "send list(...) of it",
}


class Culprit(NamedTuple):
    """The innermost part that fails."""

    path: str
    kind: str
    hint: str


def find(
    obj: object, root: str, fails: Callable[[object], bool], depth_max: int = _DEPTH_MAX
) -> Culprit:
    """Return the innermost part of `obj`, called `root`, for which `fails` holds."""
    looks = iter(range(_LOOKS_MAX))
    path, seen = root, {id(obj)}
    for _ in range(depth_max):
        if (advice := _own_advice(obj)) is not None:
            return Culprit(path, type(obj).__name__, advice)
        if kind_of(obj) in _HINTS:
            break
        for (suffix, part), _look in zip(_parts(obj), looks, strict=False):
            if id(part) not in seen and fails(part):
                path, obj = path + suffix, part
                seen.add(id(part))
                break
        else:
            break
    kind = kind_of(obj)
    return Culprit(path, kind, _HINTS.get(kind, ""))


def _own_advice(obj: object) -> str | None:
    """Return the advice of an object of ours that must not be pickled."""
    advise = getattr(type(obj), ADVICE, None)
    return None if advise is None else str(advise(obj))


def kind_of(obj: object) -> str:
    """Return the type's name, as known to users."""
    cls = type(obj)
    return f"{cls.__module__}.{cls.__qualname__}".removeprefix("builtins.")


def _parts(obj: Any) -> Iterator[tuple[str, object]]:
    match obj:
        case dict() | list() | tuple() | set() | frozenset():
            yield from _items(obj)
            if type(obj).__module__ != "builtins":
                yield from _state(obj)
        case functools.partial():
            yield ".func", obj.func
            yield from ((f".args[{i}]", part) for i, part in enumerate(obj.args))
            yield from ((f".keywords[{key!r}]", part) for key, part in obj.keywords.items())
        case types.FunctionType():
            yield from _closure(obj)
            yield from ((f".__defaults__[{i}]", v) for i, v in enumerate(obj.__defaults__ or ()))
        case types.MethodType():
            yield ".__self__", obj.__self__
        case type() | types.ModuleType():
            pass
        case _:
            yield from _state(obj)


def _items(obj: Any) -> Iterator[tuple[str, object]]:
    if isinstance(obj, dict):
        yield from ((f"[{key!r}]", value) for key, value in obj.items())
        yield from ((f".keys()[{i}]", key) for i, key in enumerate(obj))
    else:
        yield from ((f"[{i}]", part) for i, part in enumerate(obj))


def _closure(function: types.FunctionType) -> Iterator[tuple[str, object]]:
    names = function.__code__.co_freevars
    for name, cell in zip(names, function.__closure__ or (), strict=True):
        try:
            yield f".<closure>.{name}", cell.cell_contents
        except ValueError:  # not assigned yet
            continue


def _state(obj: Any) -> Iterator[tuple[str, object]]:
    """Yield what the object itself pickles (its `__getstate__` is used)."""
    try:
        reduced = obj.__reduce_ex__(4)
    except Exception:  # noqa: BLE001 - user code; then only its attributes can be looked at
        reduced = None
    if not isinstance(reduced, tuple):
        yield from ((f".{key}", value) for key, value in getattr(obj, "__dict__", {}).items())
        return
    states = reduced[2:3] if len(reduced) > 2 else ()  # noqa: PLR2004 - the protocol's positions
    for state in states[0] if states and isinstance(states[0], tuple) else states:
        if isinstance(state, dict):
            yield from ((f".{key}", value) for key, value in state.items())
        elif state is not None:
            yield ".__getstate__()", state
    arguments = islice(enumerate(reduced[1]), 1, None)
    yield from ((f".__reduce__()[1][{i}]", part) for i, part in arguments)
