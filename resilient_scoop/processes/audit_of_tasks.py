"""`--audit`: find what tasks change in the user's modules and constants.

A worker keeps its modules between tasks: a counter or a cache in a module depends on the tasks that
ran before on this worker, and these depend on the number of workers. The globals of the user's
modules and the attributes of their classes are compared by value; generators that
`task_state.generators` seeds are left out.
"""

from __future__ import annotations

import functools
import pickle
import random
import sys
import types
from typing import Any, Final

from resilient_scoop.values.user_modules import is_users, loaded

_SKIPPED: Final = (types.ModuleType, types.FunctionType, types.BuiltinFunctionType, random.Random)
_CACHE: Final = type(functools.cache(len))


class Shared:
    """Marks of the globals of the user's modules."""

    def __init__(self) -> None:
        self._marks: dict[str, Any] = {}

    def look(self) -> None:
        """Record the present values."""
        self._marks = _marks()

    def changed(self) -> list[str]:
        """Return the names of values that differ from the recorded ones, or are new."""
        now = _marks()
        modules = {
            name.split(":")[0] for name in self._marks
        }  # other modules were imported in between
        return [
            name.replace(":", ".").removeprefix("__main__.")
            for name, mark in now.items()
            if self._marks.get(name) != mark
            and (name in self._marks or name.split(":")[0] in modules)
        ]


def _marks() -> dict[str, Any]:
    marks: dict[str, Any] = {}
    for _, module in loaded():
        if not is_users(module):
            continue
        marks[f"{module.__name__}:"] = None  # it is known
        for name, value in list(vars(module).items()):
            if name.startswith("__") or isinstance(value, _SKIPPED) or _is_seeded(value):
                continue
            if not isinstance(value, type):
                marks[f"{module.__name__}:{name}"] = _mark(value)
            elif value.__module__ == module.__name__:
                marks |= {
                    f"{module.__name__}:{name}.{each}": _mark(held)
                    for each, held in list(vars(value).items())
                    if not each.startswith("__") and not callable(held)
                }
    shared = sys.modules.get("resilient_scoop.shared")
    for name, value in list(getattr(shared, "_values", {}).items()):
        marks[f"getConst({name!r})"] = _mark(value)
    return marks


def _is_seeded(value: Any) -> bool:
    numpy: Any = sys.modules.get("numpy.random")
    return numpy is not None and isinstance(value, numpy.Generator | numpy.RandomState)


def _mark(value: Any) -> Any:
    """Return a mark that differs if the value has changed."""
    if isinstance(value, _CACHE):
        return value.cache_info().currsize
    try:
        return hash(pickle.dumps(value, 5))
    except Exception:  # user code: pickling runs it
        return id(value)
