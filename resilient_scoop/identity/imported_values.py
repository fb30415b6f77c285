"""The values in the user's modules after their import: before the guarded part of the script ran.

Unchanged values need not be sent to workers, which import the same modules. Values that the script
sets afterwards (a global, a class attribute, a patched function) are sent with the callables that
refer to them.
"""

from __future__ import annotations

import builtins
import sys
from contextvars import ContextVar
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any, Final

from resilient_scoop.hashing import blake2b
from resilient_scoop.identity import library_patches, script_changes
from resilient_scoop.values.containers import content_of, is_container
from resilient_scoop.values.hidden_state import may_have_state
from resilient_scoop.values.user_code import is_user_code, is_user_module
from resilient_scoop.values.user_modules import loaded, scope_of
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
"""Larger arrays are not compared: it is unknown whether they have changed since."""

_noted: set[str] = set()
_libraries: dict[str, tuple[dict[str, Any], dict[str, list[Any]]]] = {}
_functions: dict[str, list[Any]] = {}
_values: dict[str, Any] = {}
_digests: dict[str, bytes] = {}
_own_homes: dict[str, str | None] = {}
_attributes: dict[str, frozenset[str]] = {}
_names: dict[str, frozenset[str]] = {}
_entries: dict[str, Any] = {}
"""What `sys.modules` held. Modules that have no file then are made by each process itself."""
_made: dict[int, ModuleType] = {}
_sources: dict[str, bytes] = {}
"""Digests of the files of the recorded modules."""


def note(typed: str = "") -> None:
    """Record what the user's modules hold now; replaces the earlier record.

    Workers have nothing of the module `typed`, which was typed at a prompt. They have other code of
    a module whose `assert` statements pytest has rewritten.
    """
    forget()
    _entries.update(sys.modules)
    for name, module in loaded():
        if name == typed or _is_rewritten(module):
            _noted.add(name)
        elif is_user_module(name):
            _note_module(name, module)
    _note_libraries()
    library_patches.note()
    script_changes.note(
        {home: each for home, each in _values.items() if isinstance(each, ContextVar)}
    )


def _is_rewritten(module: ModuleType) -> bool:
    loader = getattr(getattr(module, "__spec__", None), "loader", None)
    return type(loader).__module__ == "_pytest.assertion.rewrite"


def _note_libraries() -> None:
    """Record what the library modules hold that the user's modules name, and their submodules."""
    named = {
        id(value): value
        for name in _noted
        for value in list(scope_of(name).values())
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
    """Return whether the script has changed a name in a library's module.

    With `new`, a new name counts, too.
    """
    noted = _libraries.get(module.__name__)
    if noted is None:
        return False  # not recorded
    if name not in noted[0]:
        return new  # made later by the library itself
    if noted[0][name] is not value:
        return True
    content = noted[1].get(name)
    if content is None:
        return False
    now = content_of(value)
    return len(now) != len(content) or any(a is not b for a, b in zip(now, content, strict=True))


def note_late(module: ModuleType) -> None:
    """Record what a user's module holds that was imported after the others were recorded.

    If the script imports it again (`importlib.reload`), the earlier record stays: workers have what
    they imported then. Functions and classes of the same file are other objects of the same code.
    """
    name = module.__name__
    if not _noted:
        return
    if name not in _noted:
        _note_module(name, module)
        library_patches.add(name)
    elif _sources.get(name) == _source(module):
        for key, value in list(vars(module).items()):
            if isinstance(value, FunctionType | type):
                _note(f"{name}:{key}", value)


def _source(module: ModuleType) -> bytes:
    """Return the digest of the file that a module was imported from; empty if it cannot be read."""
    file = vars(module).get("__file__")
    try:
        return blake2b(Path(file).read_bytes()).digest() if isinstance(file, str) else b""
    except OSError:
        return b""


def _note_module(name: str, module: ModuleType) -> None:
    _noted.add(name)
    _sources[name] = _source(module)
    for value in vars(module).values():
        if isinstance(value, ModuleType) and _is_made(value):
            _made[id(value)] = value
    _names[name] = frozenset(key for key in vars(module) if not key.startswith("__"))
    for key, value in list(vars(module).items()):
        if not key.startswith("__") or key == "__getattr__":
            _note(f"{name}:{key}", value)


def is_lacking(name: str, entry: Any) -> bool:
    """Return whether the script has made a module itself since its import: workers lack it."""
    if not _noted or entry is None or not _is_made(entry) or id(entry) in _made:
        return False
    if _entries.get(name) is entry:
        return False
    top = name.partition(".")[0]
    root = sys.modules.get(top)
    if root is not entry and root is not None and not _is_made(root):
        return False  # its package makes it (as `six.moves`)
    return top in _entries or not _is_found(top)


def _is_made(entry: Any) -> bool:
    """Return whether an entry of `sys.modules` was not loaded from a file."""
    if not isinstance(entry, ModuleType):
        return True
    space = vars(entry)
    return space.get("__spec__") is None and space.get("__file__") is None


def _is_found(top: str) -> bool:
    """Return whether an import would find a module; this includes a module that replaces its own entry."""
    for finder in sys.meta_path:
        try:
            if finder.find_spec(top, None) is not None:
                return True
        except Exception:  # noqa: BLE001, S112 - user code: a finder
            continue
    return False


def is_new(home: str, module: ModuleType) -> bool:
    """Return whether a name in a user's module refers to another module since its import."""
    return home.partition(":")[0] in _noted and _values.get(home, MISSING) is not module


def changed_in(module: ModuleType) -> dict[str, Any]:
    """Return names and values in a user's module that it did not have after its import."""
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
    """Drop the record."""
    _noted.clear()
    _entries.clear()
    _made.clear()
    _libraries.clear()
    library_patches.forget()
    for each in (_sources, _functions, _values, _digests, _own_homes, _attributes, _names):
        each.clear()


def had(home: str) -> bool:
    """Return whether the import of a module had set a value at a home."""
    return home in _functions or home in _values or home in _digests


def deleted_from(module: ModuleType) -> list[str]:
    """Return the names that a user's module had after its import and does not have now, in order."""
    return sorted(_names.get(module.__name__, frozenset()) - vars(module).keys())


def attributes_had(home: str) -> frozenset[str]:
    """Return the names of the attributes that a class at this home had after the import of its module."""
    return _attributes.get(home, frozenset())


def is_unchanged(home: str, value: Any, digest: bytes) -> bool:
    """Return whether the value at a home (with this digest) is the one that the import set."""
    name, _, key = home.partition(":")
    patch = library_patches.known(home)
    if patch is not None:
        return not library_patches.is_changed(patch)
    if not is_user_module(name):
        module = sys.modules.get(name)
        patched = (
            isinstance(module, ModuleType) and "." not in key and is_patched(module, key, value)
        )
        return not patched and not is_user_code(value)
    if home in _own_homes and own_home(value) != _own_homes[home]:
        return False  # its former name now refers to another object
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
        or _is_stateless(value)
    ):
        _values[home] = value
    elif not isinstance(size := getattr(value, "nbytes", 0), int) or size <= _LARGE_BYTES:
        _digests[home] = _digest(value)


def _digest(value: Any) -> bytes:
    return Describer(lambda _home, _value: None).here(value, attribute=True)


def _is_stateless(value: Any) -> bool:
    return is_opaque(value) and not may_have_state(value)


def _state(function: Any) -> list[Any]:
    """Return the state of a function: parts to compare by identity, and changeable parts by digest."""
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
    fixed = is_immutable(value) or _is_stateless(value) or callable(value) or value is MISSING
    return value if fixed else _digest(value)


def _same(now: list[Any], then: list[Any]) -> bool:
    return len(now) == len(then) and all(
        a is b or (type(a) is bytes and a == b) for a, b in zip(now, then, strict=True)
    )
