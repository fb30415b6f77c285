"""What user functions and objects of a module hold, and tasks may change.

A function holds attributes, default values and closure cells: a call counter, the cache of a
decorator. It is not sent by value, because each worker imports it; so what tasks change in it is
set back in place. Of a class, the names of its attributes count here.
"""

from __future__ import annotations

import functools
import sys
from collections import OrderedDict, deque
from types import CellType, FunctionType, MethodType
from typing import Any, Final

from resilient_scoop.values.user_code import is_user_code
from resilient_scoop.values.values import CACHED, MISSING, SCALARS, content

ENTRIES_MAX: Final = 10_000
"""More entries of containers and cells would take too long to compare at each change."""
ARRAY_BYTES_MAX: Final = 1 << 20
_CONTAINERS: Final[tuple[Any, ...]] = (OrderedDict, dict, list, set, deque, bytearray)


class HeldState:
    """The state of all that a value holds, at the moment at which this is made."""

    def __init__(self, root: Any) -> None:
        self.root = root
        self.is_complete = True
        self.is_plain = True
        """Whether it holds nothing but empty attributes of functions."""
        self._cells: list[tuple[CellType, Any]] = []
        self._containers: list[tuple[Any, Any, list[Any]]] = []
        self._arrays: list[tuple[Any, Any]] = []
        self._classes: list[tuple[type, dict[str, Any]]] = []
        self._entries = 0
        left, seen = [root], set[int]()
        while left:
            value = left.pop()
            if id(value) not in seen and type(value) not in SCALARS:
                seen.add(id(value))
                left += self._note(value)

    def _note(self, value: Any) -> list[Any]:
        """Note the state of one object, and return what it refers to."""
        if isinstance(value, FunctionType):
            return self._note_function(value) if is_user_code(value) else []
        if isinstance(value, _CONTAINERS):
            self.is_plain = False
            return self._note_container(value)
        if isinstance(value, type):
            if is_user_code(value):
                self._classes.append((value, dict(vars(value))))
            return []  # what its attributes hold is noted for each of them
        if is_user_code(type(value)):
            self.is_plain = False
            return self._note_container(getattr(value, "__dict__", {}))
        if _is_array(value) or type(value) is CACHED:
            self.is_plain = False
        if _is_array(value):
            self._note_array(value)
        return parts(value)

    def _note_function(self, function: FunctionType) -> list[Any]:
        found = [*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()]
        for cell in function.__closure__ or ():
            held = content(cell)
            self._cells.append((cell, held))
            found.append(held)
        self._count(len(found))
        if function.__closure__ or vars(function):
            self.is_plain = False
        return found + self._note_container(vars(function))

    def _note_container(self, container: Any) -> list[Any]:
        kind = next(each for each in _CONTAINERS if isinstance(container, each))
        self._count(kind.__len__(container))
        if not self.is_complete:
            return []
        entries = _entries(kind, container)
        self._containers.append((kind, container, entries))
        if issubclass(kind, dict):
            return list(kind.values(container))
        return [] if kind is bytearray else entries

    def _note_array(self, array: Any) -> None:
        if not array.flags.owndata or array.dtype.hasobject or array.nbytes > ARRAY_BYTES_MAX:
            self.is_complete = False
        else:
            self._arrays.append((array, array.copy()))

    def _count(self, more: int) -> None:
        self._entries += more
        self.is_complete = self.is_complete and self._entries <= ENTRIES_MAX

    def set_back(self) -> None:
        """Give each object the state that it had."""
        for cell, held in self._cells:
            if held is not MISSING:
                cell.cell_contents = held
            elif content(cell) is not MISSING:
                del cell.cell_contents
        for kind, container, entries in self._containers:
            if not _are_same(_entries(kind, container), entries):
                _fill(kind, container, entries)
        for cls, attributes in self._classes:
            _set_names_back(cls, attributes)
        for array, copied in self._arrays:
            if array.flags.writeable and array.shape == copied.shape:
                array[...] = copied


def _set_names_back(cls: type, attributes: dict[str, Any]) -> None:
    for name in vars(cls).keys() - attributes.keys():
        type.__delattr__(cls, name)
    for name in attributes.keys() - vars(cls).keys():
        type.__setattr__(cls, name, attributes[name])


def _is_array(value: Any) -> bool:
    """Return whether it is an array in memory; a `memmap` is a file."""
    numpy = sys.modules.get("numpy")
    return numpy is not None and type(value) is numpy.ndarray


def parts(value: Any) -> list[Any]:
    """Return what an object refers to that cannot change itself."""
    if isinstance(value, tuple | frozenset):
        return list(value)
    if isinstance(value, functools.partial):
        return [value.func, *value.args, *value.keywords.values()]
    if isinstance(value, property):
        return [value.fget, value.fset, value.fdel]
    if isinstance(value, MethodType):
        return [value.__func__, value.__self__]
    if isinstance(value, staticmethod | classmethod):
        return [value.__func__]
    return [value.__wrapped__] if type(value) is CACHED else []


def _entries(kind: Any, container: Any) -> list[Any]:
    if not issubclass(kind, dict):
        return list(kind.__iter__(container))
    return [part for pair in kind.items(container) for part in pair]


def _are_same(entries: list[Any], others: list[Any]) -> bool:
    if len(entries) != len(others):
        return False
    return all(one is other for one, other in zip(entries, others, strict=True))


def _fill(kind: Any, container: Any, entries: list[Any]) -> None:
    kind.clear(container)
    if issubclass(kind, dict):
        for key, value in zip(entries[::2], entries[1::2], strict=True):
            kind.__setitem__(container, key, value)
    elif kind is set:
        set.update(container, entries)
    else:
        kind.extend(container, entries)
