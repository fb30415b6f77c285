"""Find out what is the user's own code, its names, and where it is found.

The user's code is every module whose file is not in the standard library, in an installed package
or in this one; also modules without a file that are not built in. A module of the user may have the
name of one of the standard library: the file decides.
"""

from __future__ import annotations

import functools
import importlib
import sys
from collections.abc import Callable
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any, Final

from resilient_scoop.adapters.canonical import module_name
from resilient_scoop.values.user_modules import file_of, is_users_file

_HEAP_TYPE, _IMMUTABLE = 1 << 9, 1 << 8
_OURS: Final = __name__.partition(".")[0]


def is_user_code(obj: Any) -> bool:
    """Return whether a function or class is the user's own: not of Python, a package, or ours."""
    name = getattr(obj, "__module__", None)
    if not isinstance(name, str):
        return isinstance(obj, FunctionType)
    if name == "builtins":
        # What `exec` makes in a namespace without `__name__` has this module name.
        return isinstance(obj, FunctionType) or is_made_by_code(obj)
    return is_user_module(name)


def is_made_by_code(obj: Any) -> bool:
    """Return whether an object is a class that was made by Python code."""
    return isinstance(obj, type) and bool(
        obj.__flags__ & _HEAP_TYPE and not obj.__flags__ & _IMMUTABLE
    )


def is_user_module(name: str) -> bool:
    """Return whether the module of this name is the user's own."""
    top = name.partition(".")[0]
    if top == "__main__":
        return True
    if top == _OURS:
        return False
    file = file_of(name)
    if file is not None:
        return is_user_file(file)
    return top not in sys.stdlib_module_names and top not in sys.builtin_module_names


@functools.lru_cache(maxsize=4096)
def is_user_file(file: str) -> bool:
    """Return whether a source file is the user's own."""
    return is_users_file(file)


def describe(function: Any) -> str:
    """Return `module:qualname` of the function that a callable runs, for display and for `find`."""
    while isinstance(function, functools.partial):
        function = function.func
    if isinstance(function, MethodType):
        function = function.__func__
    name = getattr(function, "__qualname__", None) or type(function).__qualname__
    named = function if hasattr(function, "__qualname__") else type(function)
    if getattr(named, "__module__", None) is None and isinstance(function, BuiltinFunctionType):
        return f"builtins:{name}"
    return f"{module_name(named)}:{name}"


def find(name: str, main_module: ModuleType | None) -> Callable[..., Any] | None:
    """Return the callable that `describe` named, or None if it cannot be found by its name."""
    module, _, qualname = name.partition(":")
    if module == "__main__":
        found: Any = main_module
    else:
        try:
            found = importlib.import_module(module)
        except (ImportError, ValueError):
            return None
    for part in qualname.split("."):
        found = getattr(found, part, None)
    return found if callable(found) else None


@functools.lru_cache(maxsize=1024)
def version(top: str) -> str:
    """Return the version of a package by its top-level name; empty if it has none."""
    if top in sys.stdlib_module_names or top == "__main__":
        return ""
    module: object = sys.modules.get(top)
    found = getattr(module, "__version__", None) if isinstance(module, ModuleType) else None
    if isinstance(found, str):
        return found
    from importlib import metadata

    try:
        return metadata.version(top)
    except metadata.PackageNotFoundError:
        return ""
