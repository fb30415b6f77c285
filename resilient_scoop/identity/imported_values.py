"""What the user's modules held when they had been imported: before the guarded part of the script.

What is still so needs not be sent to workers, which import the same modules. What the script sets
afterwards (a global, a class attribute, a patched function) travels with the callables that refer to it.
"""

from __future__ import annotations

import builtins
import sys
from contextvars import ContextVar
from types import FunctionType, ModuleType
from typing import Any, Final

from resilient_scoop.identity import script_changes
from resilient_scoop.values.containers import content_of, is_container
from resilient_scoop.values.user_code import is_user_code, is_user_module
from resilient_scoop.values.values import (
    MISSING,
    Describer,
    attributes_of,
    content,
    is_immutable,
    is_opaque,
    own_home,
    own_names,
)

_LARGE_BYTES: Final = 64 << 20
"""Larger arrays are not looked at: it is not known whether they have been changed since."""

_noted: set[str] = set()
_libraries: dict[str, tuple[dict[str, Any], dict[str, list[Any]]]] = {}
_functions: dict[str, list[Any]] = {}
_values: dict[str, Any] = {}
_digests: dict[str, bytes] = {}
_own_homes: dict[str, str | None] = {}
_attributes: dict[str, frozenset[str]] = {}


def note() -> None:
    """Note what the user's modules hold now; replaces what was noted before."""
    forget()
    for name, module in list(sys.modules.items()):
        if is_user_module(name):
            _note_module(name, module)
    _note_libraries()
    script_changes.note(
        {home: each for home, each in _values.items() if isinstance(each, ContextVar)}
    )


def _note_libraries() -> None:
    """Note what those modules of libraries hold that the user's modules name, and their submodules."""
    named = {
        id(value): value
        for name in _noted
        for value in list(vars(sys.modules[name]).values())
        if isinstance(value, ModuleType) and not is_user_module(value.__name__)
    }
    _note_library(builtins)
    for module in list(named.values()):
        top = module.__name__.partition(".")[0]
        _note_library(module)
        for each in list(vars(module).values()):
            if isinstance(each, ModuleType) and each.__name__.partition(".")[0] == top:
                _note_library(each)


def _note_library(module: ModuleType) -> None:
    space = vars(module)
    if module.__name__ not in _libraries:
        contents = {
            key: content_of(value) for key, value in list(space.items()) if is_container(value)
        }
        _libraries[module.__name__] = (space.copy(), contents)


def is_patched(module: ModuleType, name: str, value: Any, *, new: bool = False) -> bool:
    """Tell whether the script has changed what a library's module holds under a name.

    With `new`, a name that it did not have counts, too.
    """
    noted = _libraries.get(module.__name__)
    if noted is None:
        return False  # not looked at
    if name not in noted[0]:
        return new  # made by the library itself since
    if noted[0][name] is not value:
        return True
    content = noted[1].get(name)
    if content is None:
        return False
    now = content_of(value)
    return len(now) != len(content) or any(a is not b for a, b in zip(now, content, strict=True))


def note_late(module: ModuleType) -> None:
    """Note what a module of the user's holds that has been imported after the others were noted."""
    if _noted:
        _note_module(module.__name__, module)


def _note_module(name: str, module: ModuleType) -> None:
    _noted.add(name)
    for key, value in list(vars(module).items()):
        if not key.startswith("__") or key == "__getattr__":
            _note(f"{name}:{key}", value)


def is_new(home: str, module: ModuleType) -> bool:
    """Tell whether a module of the user's has got another module under a name since it was imported."""
    return home.partition(":")[0] in _noted and _values.get(home, MISSING) is not module


def changed_in(module: ModuleType) -> dict[str, Any]:
    """Return what a module of the user's holds under names of its own, and did not when it was imported."""
    name = module.__name__
    if name not in _noted:
        return {}
    found = {}
    for key, value in list(vars(module).items()):
        if not key.startswith("__") and not isinstance(value, ModuleType):
            home = f"{name}:{key}"
            digest = _digest(value) if home in _digests else b""
            if not is_unchanged(home, value, digest):
                found[key] = value
    return found


def forget() -> None:
    """Let go of what was noted."""
    _noted.clear()
    _libraries.clear()
    for each in (_functions, _values, _digests, _own_homes, _attributes):
        each.clear()


def had(home: str) -> bool:
    """Tell whether the import of a module had put something at a home."""
    return home in _functions or home in _values or home in _digests


def attributes_had(home: str) -> frozenset[str]:
    """Return the names of what a class at this home held itself when its module had been imported."""
    return _attributes.get(home, frozenset())


def is_unchanged(home: str, value: Any, digest: bytes) -> bool:
    """Tell whether a value (of this digest) that stands at a home is what the import put there."""
    name, _, key = home.partition(":")
    if not is_user_module(name):
        module = sys.modules.get(name)
        patched = module is not None and "." not in key and is_patched(module, key, value)
        return not patched and not is_user_code(value)
    if home in _own_homes and own_home(value) != _own_homes[home]:
        return False  # the name that it was known by is another's now
    if home in _functions:
        return isinstance(value, FunctionType) and _same(_state(value), _functions[home])
    if home in _digests:
        return digest == _digests[home]
    return _values.get(home, MISSING) is value


def _note(home: str, value: Any) -> None:
    if isinstance(value, FunctionType | type):
        _own_homes[home] = own_home(value)
    if isinstance(value, FunctionType):
        _functions[home] = _state(value)
    elif isinstance(value, type):
        _values[home] = value
        if is_user_code(value) and value.__module__ == home.partition(":")[0]:
            held = dict(attributes_of(value))
            _attributes[home] = frozenset(held)
            for name, each in held.items():
                _note(f"{home}.{name}", each)
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
        *(value for _, value in own_names(function)),
    ]
    return [function, function.__code__, *map(_comparable, held)]


def _comparable(value: Any) -> Any:
    fixed = is_immutable(value) or is_opaque(value) or callable(value) or value is MISSING
    return value if fixed else _digest(value)


def _same(now: list[Any], then: list[Any]) -> bool:
    return len(now) == len(then) and all(
        a is b or (type(a) is bytes and a == b) for a, b in zip(now, then, strict=True)
    )
