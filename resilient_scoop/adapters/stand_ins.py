"""Functions of ours that stand in for built-in ones, while the user's code may keep them.

Code that keeps one (as a default value, in a class) means the built-in function, and is compared so.
"""

from __future__ import annotations

from typing import Any, Final

_originals: Final[dict[int, tuple[Any, Any]]] = {}


def stands_in(ours: Any, original: Any) -> Any:
    """Give a function the name of the one that it stands in for; return it."""
    ours.__name__ = ours.__qualname__ = original.__name__
    ours.__module__, ours.__doc__ = original.__module__, original.__doc__
    _originals[id(ours)] = (ours, original)
    return ours


def original_of(function: Any) -> Any:
    """Return the function that is meant."""
    found = _originals.get(id(function))
    return function if found is None else found[1]
