"""Dicts, lists and sets in a library's module: tables and settings that a script may change.

They are changed in place, because the library and others refer to them as well. They can be of
derived classes that check their entries (`matplotlib.rcParams`); entries that are copied from
another process were checked there.
"""

from __future__ import annotations

from typing import Any, Final

from resilient_scoop.adapters.canonical import Canon

ITEMS_MAX: Final = 10_000
_DEPTH_MAX: Final = 4


def is_container(value: Any) -> bool:
    """Return whether a value of a library's module is a small container."""
    return isinstance(value, dict | list | set) and len(value) <= ITEMS_MAX


def content_of(container: Any, depth: int = 0) -> list[Any]:
    """Return the content of a container, including nested dicts, to be compared by identity."""
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
    """Give a container the content of another one; equal entries stay the same objects."""
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
        return True  # a unique mark
    if type(held) is not type(value):
        return False
    digest = _canon.digest(held)
    return digest is not None and digest == _canon.digest(value)


_canon: Final = Canon(lambda function: function.__qualname__.encode())
