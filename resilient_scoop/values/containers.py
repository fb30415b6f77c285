"""Dicts, lists and sets that a library's module holds: tables and settings that a script may change.

They are changed in place, since the library and others hold them as well. They can be of classes
derived from those, with rules of their own for what may be put in (`matplotlib.rcParams`); what is copied
from another process has met these rules there.
"""

from __future__ import annotations

from typing import Any, Final

from resilient_scoop.adapters.canonical import Canon

ITEMS_MAX: Final = 10_000
_DEPTH_MAX: Final = 4


def is_container(value: Any) -> bool:
    """Tell whether a value of a library's module is a container that is not large."""
    return isinstance(value, dict | list | set) and len(value) <= ITEMS_MAX


def content_of(container: Any, depth: int = 0) -> list[Any]:
    """Return what a container holds, that of dicts in dicts included, to be compared by identity."""
    if not isinstance(container, dict):
        return list((list if isinstance(container, list) else set).__iter__(container))
    found = [*dict.__iter__(container), *dict.values(container)]
    if depth < _DEPTH_MAX:
        for value in dict.values(container):
            if type(value) is dict:
                found += content_of(value, depth + 1)
    return found


def copy_of(container: Any) -> Any:
    """Return a plain copy of a container, with copies of dicts that are in a dict."""
    if isinstance(container, dict):
        return {
            key: copy_of(value) if type(value) is dict else value
            for key, value in dict.items(container)
        }
    return list(container) if isinstance(container, list) else set(container)


def fill(container: Any, content: Any) -> None:
    """Have a container hold what another one holds; what is equal already stays the same object."""
    if isinstance(container, dict):
        new: dict[Any, Any] = {}
        for key, value in dict.items(content):
            held: Any = dict.get(container, key)
            if type(held) is dict and type(value) is dict:
                fill(held, value)
                new[key] = held
            else:
                new[key] = held if key in container and _is_same(held, value) else value
        dict.clear(container)
        dict.update(container, new)
    elif isinstance(container, list):
        list.__setitem__(container, slice(None), list(content))
    else:
        set.clear(container)
        set.update(container, content)


def _is_same(held: Any, value: Any) -> bool:
    if held is value:
        return True
    if type(held) is object is type(value):
        return True  # a mark that stands for nothing but itself
    if type(held) is not type(value):
        return False
    digest = _canon.digest(held)
    return digest is not None and digest == _canon.digest(value)


_canon: Final = Canon(lambda function: function.__qualname__.encode())
