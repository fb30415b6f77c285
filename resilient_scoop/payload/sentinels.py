"""Pickling of sentinels by the name that the user's module gives them, so that `is` finds them elsewhere.

A sentinel is an object without a state that a module or class of the user holds: `MISSING = object()`,
or an instance that has no attributes. So is `dataclasses.MISSING`. Plain pickle makes another object of
it, which no longer is the one that the code compares with.

Names that the script binds under its guard do not exist in workers: such objects are pickled as before.
"""

from __future__ import annotations

import enum
import functools
import importlib
import sys
from collections.abc import Iterator
from typing import Any, Final

from resilient_scoop.adapters import deap_classes
from resilient_scoop.payload import class_keys
from resilient_scoop.values import user_modules
from resilient_scoop.values.user_code import is_user_code, is_user_module

_PROTOCOL: Final = 5
_BASIC_BYTES: Final = object.__basicsize__ + 16
"""Objects with only attributes and weak references are not larger than this."""
_OWN_WAYS: Final = (
    "__reduce__",
    "__reduce_ex__",
    "__getstate__",
    "__getnewargs__",
    "__getnewargs_ex__",
)

_known: dict[int, tuple[Any, str, str]] = {}  # by id: the object, its module, its name in it
_lost: dict[tuple[str, str], Any] = {}


class _Last:
    """The last table, and what it was made for."""

    table: dict[type, Any] = {}  # noqa: RUF012 - one per process
    base: Any = None
    sizes: tuple[int, int, int] = (0, 0, 0)


def dispatch_table() -> dict[type, Any]:
    """Return the table of reductions, with those of sentinels; do not change it."""
    base = deap_classes.dispatch_table()
    # The import of the script ends without a new module.
    sizes = (len(sys.modules), len(vars(sys.modules["__main__"])), len(class_keys.guarded))
    if _Last.base is not base or _Last.sizes != sizes:
        _known.clear()
        _known.update((id(each), (each, module, name)) for module, name, each in _sentinels())
        kinds = {type(each) for each, _, _ in _known.values()}
        _Last.table = {**base, **dict.fromkeys(kinds - base.keys(), reduce)}
        _Last.base, _Last.sizes = base, sizes
    return _Last.table


def is_kind(kind: type) -> bool:
    """Return whether `reduce` is the reduction of objects of this type."""
    return dispatch_table().get(kind) is reduce


def reduce(obj: Any) -> Any:
    """Return the reduction of an object: by its name, if it is a sentinel."""
    found = _known.get(id(obj))
    if found is None or object.__getstate__(obj) is not None:
        return obj.__reduce_ex__(_PROTOCOL)
    return find, (*found[1:], type(obj))


def find(module: str, name: str, kind: type) -> Any:
    """Return the sentinel of this name; if this process has none, return one substitute for the name.

    One that a task has given a state is none.
    """
    try:
        found = functools.reduce(getattr, name.split("."), importlib.import_module(module))
    except (ImportError, AttributeError):
        found = None
    if type(found) is kind and object.__getstate__(found) is None:
        return found
    return _lost.setdefault((module, name), object.__new__(kind))


def _sentinels() -> Iterator[tuple[str, str, Any]]:
    if "dataclasses" in sys.modules:
        yield "dataclasses", "MISSING", sys.modules["dataclasses"].MISSING
    for module, each in user_modules.loaded():
        if module != each.__name__ or not is_user_module(module):
            continue  # the script may have a second name, `__mp_main__`
        for name, value in list(vars(each).items()):
            if module == "__main__" and name in class_keys.guarded:
                continue
            if _is_sentinel(value):
                yield module, name, value
            elif isinstance(value, type) and value.__module__ == module:
                for inner, held in _held_by(value):
                    if _is_sentinel(held):
                        yield module, f"{name}.{inner}", held


def _held_by(cls: type) -> list[tuple[str, Any]]:
    """Return names and values of a class's attributes; of an enum, those of its members."""
    if isinstance(cls, enum.EnumMeta):
        members: list[tuple[str, Any]] = list(cls.__members__.items())
        return [(f"{name}._value_", each._value_) for name, each in members]
    return list(vars(cls).items())


def _is_sentinel(value: Any) -> bool:
    kind = type(value)
    if kind is object:
        return True
    return (
        kind.__basicsize__ <= _BASIC_BYTES
        and not kind.__itemsize__
        and is_user_code(kind)
        and not isinstance(value, type)
        and all(getattr(kind, way, None) is getattr(object, way, None) for way in _OWN_WAYS)
        and object.__getstate__(value) is None
    )
