"""Keys that identify classes without importable names in all processes of a run (see `payload.classes`).

The key of a class is (path of the future in which it was first sent, module, qualified name, how
many of that name the future had sent before). A future that runs again from the top assigns the
same keys, so results in the journal find the class that the code made this time.

A class that a global variable of its module holds under another name (`Point = make_class()` at the
top level) is made by every process that imports the module. Its key is that name, and each process
uses its own class.
"""

from __future__ import annotations

import gc
import sys
import types
import weakref
from collections.abc import Callable
from typing import Any, Final, NamedTuple

import msgspec

from resilient_scoop.values.user_modules import scope_of


class Key(NamedTuple):
    """The key of a class in all processes of a run."""

    where: str  # path of a future; empty: a global variable of the module
    module: str
    name: str
    nth: int


class SendingFuture(NamedTuple):
    """The future that is running: its path, and how many classes it has sent, by name."""

    path: str
    counts: dict[tuple[str, str, str], int]


class KnownClass(msgspec.Struct, eq=False):
    """What is known about a class; `is_bare` until its content is set."""

    ref: weakref.ref[type]
    key: Key
    born_here: bool
    is_bare: bool = False


HEAP_TYPE, _IMMUTABLE_TYPE = 1 << 9, 1 << 8

_known: dict[int, KnownClass] = {}
_by_key: dict[Key, weakref.ref[type]] = {}


class AllNames(set[str]):
    """Every name: of a `__main__` that was typed, and that no worker can import."""

    def __contains__(self, name: object) -> bool:
        return True

    def __bool__(self) -> bool:
        return True


guarded: set[str] = set()
"""Names in `__main__` here that do not exist in workers: those that the script binds under `if
__name__ == "__main__":`. Functions and classes with these names are pickled by value."""
_nowhere: Final = SendingFuture("-", {})


class ProcessClasses:
    """The present state of this process."""

    place: Callable[[], SendingFuture] = staticmethod(lambda: _nowhere)
    is_call = False  # a call's callable or arguments are being loaded


def locate(place: Callable[[], SendingFuture]) -> None:
    """Set `place`, which returns the running future."""
    ProcessClasses.place = staticmethod(place)


def is_guarded(obj: type | types.FunctionType) -> bool:
    """Return whether a function or class is in `__main__` and does not exist in workers."""
    return obj.__module__ == "__main__" and obj.__qualname__.partition(".")[0] in guarded


def is_importable(obj: type | types.FunctionType) -> bool:
    """Return whether every process finds a function or class by its name."""
    found: object = sys.modules.get(obj.__module__ or "")
    if found is None or is_guarded(obj):
        return False
    for name in obj.__qualname__.split("."):
        found = getattr(found, name, None)
    return found is obj


def is_dynamic(cls: type) -> bool:
    """Return whether a class was made by Python code and cannot be found by a name."""
    flags = cls.__flags__
    made = bool(flags & HEAP_TYPE) and not flags & _IMMUTABLE_TYPE
    return made and isinstance(vars(cls).get("__module__"), str) and not is_importable(cls)


def key_of(cls: type) -> Key:
    """Return the key of a class; assign one if it has none."""
    found = _known.get(id(cls))
    if found is not None and found.ref() is cls:
        return found.key
    name = _global_name(cls)
    if name is not None:
        return remember(cls, Key("", *name, 0), born_here=True)
    return _next_key(cls)


def key_by_place(cls: type) -> None:
    """Assign a key to a class that has a name, because workers have another class of that name."""
    found = _known.get(id(cls))
    if found is None or found.ref() is not cls or not found.key.where:
        _next_key(cls)


def _next_key(cls: type) -> Key:
    path, counts = ProcessClasses.place()
    kind = (path, cls.__module__, cls.__qualname__)
    nth = counts.get(kind, 0)
    counts[kind] = nth + 1
    return remember(cls, Key(*kind, nth), born_here=True)


def known_as(cls: type) -> KnownClass:
    """Return what is known about a class with a key."""
    return _known[id(cls)]


def remember(cls: type, key: Key, *, born_here: bool, is_bare: bool = False) -> Key:
    """Register a class under its key, while it is alive; return the key."""
    number, known, by_key = id(cls), _known, _by_key

    def forget(dead: weakref.ref[type]) -> None:
        if number in known and known[number].ref is dead:
            del known[number]
        if by_key.get(key) is dead:
            del by_key[key]

    ref = weakref.ref(cls, forget)
    _known[number] = KnownClass(ref, key, born_here, is_bare)
    _by_key[key] = ref
    return key


def _global_name(cls: type) -> tuple[str, str] | None:
    """Return (module, name) of the global variable that holds a class here and in every worker."""
    for module in dict.fromkeys((cls.__module__, "__main__")):
        for name, value in list(scope_of(module).items()):
            if value is cls:
                return None if module == "__main__" and name in guarded else (module, name)
    return None


def find(key: Key, bases: tuple[Any, ...], qualname: str) -> type | None:
    """Return the class of a key, if this process has it."""
    ref = _by_key.get(key)
    found = None if ref is None else ref()
    if found is not None:
        return found
    if not key.where:
        found = getattr(sys.modules.get(key.module), key.name, None)
        if not isinstance(found, type) or found.__qualname__ != qualname:
            return None
    else:
        found = _made_again(key, bases)
    if found is not None:
        remember(found, key, born_here=True)
    return found


def _made_again(key: Key, bases: tuple[Any, ...]) -> type | None:
    """Return the class that this future, which runs again, has made but not sent yet.

    This happens if it gets its checkpoint, or the value of a `once`, before it makes a call.
    """
    path, counts = ProcessClasses.place()
    if path != key.where or ProcessClasses.is_call:
        return None
    gc.collect()  # classes of futures that have ended
    base = next((base for base in bases if isinstance(base, type)), object)
    kind = (path, key.module, key.name)
    made: list[type] = type.__subclasses__(base)
    found = [
        cls
        for cls in made
        if (cls.__module__, cls.__qualname__) == kind[1:] and id(cls) not in _known
    ]
    at = key.nth - counts.get(kind, 0)
    if not 0 <= at < len(found):
        return None
    counts[kind] = key.nth + 1
    return found[at]
