"""Pickling by value with dill: for lambdas, closures, and objects defined inside functions.

dill is changed in four ways. What can be found by its name is pickled by its name, in `__main__`
too, because every worker's `__main__` is the user's script: dill would send a second class of the
same name, and `isinstance` would fail. Other classes are pickled as described in `payload.classes`.
Locks, files and sockets, which dill copies silently, are refused: a copied lock locks nothing, and
a copied file opened for writing truncates the original. DEAP's classes are pickled as described in
`adapters.deap_classes`.
"""

from __future__ import annotations

import _thread
import functools
import io
import pickle
import sys
import types
from collections.abc import Callable, Container
from typing import IO, Any, Final

from resilient_scoop.adapters import bound_methods, deap_classes, former_names
from resilient_scoop.payload import class_keys, classes, functions
from resilient_scoop.values.user_modules import scope_of
from resilient_scoop.values.values import own_home

_PROTOCOL: Final = 5
_PLAIN: Final = frozenset({str, int, bytes, dict, tuple, list, type(None), bool, float})
_REFUSED: Final = (
    _thread.LockType,
    _thread.RLock,
    io.TextIOWrapper,
    io.BufferedReader,
    io.BufferedWriter,
    io.BufferedRandom,
    io.FileIO,
)


def dumps(obj: object) -> bytes:
    """Return dill's pickle of `obj`; raises the exceptions of dill and of the objects' own methods."""
    return _dumps(obj, _Reducer().reduce)


def _dumps(obj: object, reduce: Callable[[Any], Any]) -> bytes:
    import dill

    out = io.BytesIO()
    pickler = dill.Pickler(out, _PROTOCOL, byref=False, recurse=False)
    pickler._main = _main()  # noqa: SLF001 - dill keeps the module that was main at its import
    pickler.reducer_override = reduce
    pickler.dump(obj)
    return out.getvalue()


def dumps_values(values: dict[str, Any]) -> bytes:
    """Return dill's pickle of values in modules, by home; their functions and classes by value.

    Raises the exceptions of dill and of the objects' own methods.
    """
    forced: dict[int, Any] = {}
    for home, each in values.items():
        own = each.__func__ if isinstance(each, staticmethod | classmethod) else each
        if isinstance(own, type | types.FunctionType) and own_home(own) in (home, None):
            forced[id(own)] = own
            if isinstance(own, type):
                class_keys.key_by_place(own)
    return _dumps(values, _Reducer(forced).reduce)


def loads(data: bytes | memoryview) -> Any:
    """Return the object that `dumps` pickled."""
    # Without `ignore`, dill gives an object the class of this name that the script has now.
    unpickler = _unpickler_class()(io.BytesIO(data), ignore=True)
    unpickler._main = _main()  # noqa: SLF001 - dill keeps its `__main__` there
    return unpickler.load()


@functools.cache
def _unpickler_class() -> Any:
    import dill

    class Unpickler(dill.Unpickler):  # type: ignore[misc]  # dill has no types
        def find_class(self, module: str, name: str) -> Any:
            return super().find_class(former_names.current(module, name), name)

    return Unpickler


def dumps_state(obj: object, first: Callable[[Any], Any]) -> bytes:
    """Return dill's pickle of a checkpoint's state: `first` is asked how to reduce each object.

    Names that the script binds under its guard exist when the script runs again, and are pickled by name.
    """
    own = _Reducer()

    def reduce(each: Any) -> Any:
        found = first(each)
        return own.reduce(each) if found is NotImplemented else found

    names = class_keys.guarded.copy()
    class_keys.guarded.clear()
    try:
        return _dumps(obj, reduce)
    finally:
        class_keys.guarded.update(names)


def loads_state(data: IO[bytes], find: Callable[..., Any]) -> Any:
    """Return what `dumps_state` pickled; `find` is called for each class, with dill's own lookup."""
    import dill

    class Unpickler(dill.Unpickler):  # type: ignore[misc]  # dill has no types
        def find_class(self, module: str, name: str) -> Any:
            return find(former_names.current(module, name), name, super().find_class)

    unpickler = Unpickler(data, ignore=True)
    unpickler._main = _main()  # noqa: SLF001 - dill keeps its `__main__` there
    return unpickler.load()


def _main() -> types.ModuleType:
    return sys.modules["__main__"]


class _Reducer:
    """Decides how the objects of one pickle are reduced."""

    def __init__(self, forced: Container[int] = ()) -> None:
        self._forced = forced  # ids of objects that are pickled by value although they have a name
        self._classes: set[int] = set()  # ids of those found; the pickle itself keeps them alive

    def reduce(self, obj: Any) -> Any:
        """Return an object's reduction, or NotImplemented to leave it to dill."""
        if type(obj) in _PLAIN:
            return NotImplemented
        if isinstance(obj, type | types.FunctionType):
            return self._named(obj)
        if isinstance(obj, types.MethodType | types.BuiltinMethodType):
            if deap_classes.global_stream(obj.__self__) is not None:
                return deap_classes.dispatch_table()[type(obj)](obj)
            if type(obj) is types.MethodType and not bound_methods.has_own_name(obj):
                return bound_methods.reduce(obj)
            return NotImplemented
        if isinstance(obj, _REFUSED) and obj not in _standard_streams():
            raise pickle.PicklingError(f"cannot pickle {type(obj).__name__!r} object")
        return classes.reduce_other(obj)

    def _named(self, obj: type | types.FunctionType) -> Any:
        own = deap_classes.dispatch_table().get(type(obj))
        if own is not None:
            return own(obj)
        if id(obj) in self._forced:
            if isinstance(obj, types.FunctionType):
                scope = obj.__globals__
                # dill copies a namespace that is no module's.
                is_module = scope_of(str(scope.get("__name__"))) is scope
                return functions.reduce(obj) if is_module else NotImplemented
        elif class_keys.is_importable(obj):
            return obj.__qualname__
        elif isinstance(obj, types.FunctionType) and _is_wrapper_of_another_module(obj):
            return functions.reduce(obj)
        elif not isinstance(obj, type) or not class_keys.is_dynamic(obj):
            return NotImplemented
        if id(obj) in self._classes:
            raise classes.refuse_cycle(obj)
        self._classes.add(id(obj))
        return classes.reduce(obj)


def _is_wrapper_of_another_module(function: types.FunctionType) -> bool:
    """Return whether a function has the name of what it wraps: dill would copy its module's globals."""
    module = function.__globals__.get("__name__")
    if module == function.__module__ or not isinstance(module, str):
        return False
    return scope_of(module) is function.__globals__


def _standard_streams() -> tuple[object, ...]:
    return (sys.stdin, sys.stdout, sys.stderr, sys.__stdin__, sys.__stdout__, sys.__stderr__)
