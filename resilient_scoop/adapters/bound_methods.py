"""Pickling of bound methods that cannot be found at their owner by the name of their function.

Plain pickle sends a bound method as `getattr(owner, name of its function)`. That is another method, or
none, for `super().run` (the owner has overridden it), for a decorated method (its function has the
name of the wrapper), for a method that was assigned (`Cls.run = lambda ...`), for `__private` ones,
and for one that an attribute of the owner shadows.
"""

from __future__ import annotations

import inspect
from types import FunctionType, MethodType
from typing import Any


def reduce(method: Any) -> Any:
    """Return the reduction of a bound method, also of one that is implemented in C."""
    if type(method) is not MethodType or has_own_name(method):
        return method.__reduce__()
    owner, function = method.__self__, method.__func__
    for cls in (*_mro(owner), *type(owner).__mro__):
        for name, value in vars(cls).items():
            if _unwrapped(value) is function:
                return by_place, (cls, name, owner)
    return bind, (function, owner)


def has_own_name(method: MethodType) -> bool:
    """Return whether `getattr(owner, name of the function)` gives this method."""
    owner, function = method.__self__, method.__func__
    name = getattr(function, "__name__", None)
    if not isinstance(name, str):
        return False
    found = inspect.getattr_static(owner, name, None)
    if found is function:
        return not any(name in vars(cls) for cls in _mro(owner))
    if isinstance(found, classmethod):
        return isinstance(owner, type) and found.__func__ is function
    if isinstance(found, FunctionType) or not hasattr(type(found), "__get__"):
        return False
    try:  # a descriptor of the user
        return bool(getattr(owner, name) == method)
    except Exception:  # noqa: BLE001 - user code
        return False


def by_place(cls: type, name: str, owner: Any) -> Any:
    """Return the method that a class holds under a name, bound to an owner."""
    return bind(_unwrapped(vars(cls)[name]), owner)


def bind(function: Any, owner: Any) -> Any:
    """Return a function bound to an owner."""
    return MethodType(function, owner)


def _mro(owner: Any) -> tuple[type, ...]:
    return owner.__mro__ if isinstance(owner, type) else ()


def _unwrapped(value: Any) -> Any:
    return value.__func__ if isinstance(value, classmethod) else value
