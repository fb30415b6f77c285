"""What the user's modules held when they had been imported: before the guarded part of the script.

What is still so needs not be sent to workers, which import the same modules. What the script sets
afterwards (a global, a class attribute, a patched function) travels with the callables that refer to it.
"""

from __future__ import annotations

import sys
from types import FunctionType, ModuleType
from typing import Any, Final

from resilient_scoop.adapters import setting
from resilient_scoop.adapters.user_code import is_user_code, is_user_module
from resilient_scoop.adapters.values import (
    MISSING,
    Describer,
    attributes_of,
    content,
    is_immutable,
    is_opaque,
)

_LARGE_BYTES: Final = 64 << 20
"""Larger arrays are not looked at: it is not known whether they have been changed since."""

_functions: dict[str, list[Any]] = {}
_values: dict[str, Any] = {}
_digests: dict[str, bytes] = {}


def note() -> None:
    """Note what the user's modules hold now; replaces what was noted before."""
    setting.note()
    forget()
    for name, module in list(sys.modules.items()):
        if is_user_module(name):
            for key, value in list(vars(module).items()):
                if not key.startswith("__"):
                    _note(f"{name}:{key}", value)


def forget() -> None:
    """Let go of what was noted."""
    _functions.clear()
    _values.clear()
    _digests.clear()


def had(home: str) -> bool:
    """Tell whether the import of a module had put something at a home."""
    return home in _functions or home in _values or home in _digests


def is_unchanged(home: str, value: Any, digest: bytes) -> bool:
    """Tell whether a value (of this digest) that stands at a home is what the import put there."""
    if not is_user_module(home.partition(":")[0]):
        return not is_user_code(value)
    if home in _functions:
        return isinstance(value, FunctionType) and _same(_state(value), _functions[home])
    if home in _digests:
        return digest == _digests[home]
    return _values.get(home, MISSING) is value


def _note(home: str, value: Any) -> None:
    if isinstance(value, FunctionType):
        _functions[home] = _state(value)
    elif isinstance(value, type):
        _values[home] = value
        if is_user_code(value) and value.__module__ == home.partition(":")[0]:
            for name, held in attributes_of(value):
                _note(f"{home}.{name}", held)
    elif (
        isinstance(value, staticmethod | classmethod | property | ModuleType)
        or is_immutable(value)
        or is_opaque(value)
    ):
        _values[home] = value
    elif not isinstance(size := getattr(value, "nbytes", 0), int) or size <= _LARGE_BYTES:
        _digests[home] = _digest(value)


def _digest(value: Any) -> bytes:
    return Describer(lambda _home, _value: None).attribute(value)


def _state(function: Any) -> list[Any]:
    """Return what a function is: to be compared by identity, and by digest what can change."""
    keywords = function.__kwdefaults__ or {}
    held = [
        *(function.__defaults__ or ()),
        *keywords,
        *keywords.values(),
        *(content(cell) for cell in function.__closure__ or ()),
        *vars(function),
        *vars(function).values(),
    ]
    return [function, function.__code__, *map(_comparable, held)]


def _comparable(value: Any) -> Any:
    fixed = is_immutable(value) or is_opaque(value) or callable(value) or value is MISSING
    return value if fixed else _digest(value)


def _same(now: list[Any], then: list[Any]) -> bool:
    return len(now) == len(then) and all(
        a is b or (type(a) is bytes and a == b) for a, b in zip(now, then, strict=True)
    )
