"""Pickling by value with dill: for lambdas, closures, and what is defined inside of functions.

dill is bent in three ways. What can be found by its name travels by its name, in `__main__` too,
since every worker's `__main__` is the user's script: dill would send a second class of the same
name, and `isinstance` would fail. Locks, files and sockets, of which dill makes silent copies, are
refused: a copied lock locks nothing, and a copied file opened for writing truncates the original.
DEAP's classes travel as `payload_deap` says.
"""

from __future__ import annotations

import _thread
import io
import pickle
import sys
import types
from collections.abc import Callable
from typing import IO, Any, Final

from resilient_scoop.adapters import payload_deap

_PROTOCOL: Final = 5
_REFUSED: Final = (
    _thread.LockType,
    _thread.RLock,
    io.TextIOWrapper,
    io.BufferedReader,
    io.BufferedWriter,
    io.BufferedRandom,
    io.FileIO,
)


guarded: set[str] = set()
"""Names of `__main__` here that its namesake in a worker lacks: what the script binds under
`if __name__ == "__main__":`. Functions and classes of these names travel by value."""


def is_guarded(obj: type | types.FunctionType) -> bool:
    """Tell whether a function or class is of `__main__` and has no namesake in workers."""
    return obj.__module__ == "__main__" and obj.__qualname__.partition(".")[0] in guarded


def dumps(obj: object) -> bytes:
    """Return dill's pickle of `obj`; raises what dill and the objects' own methods raise."""
    import dill

    out = io.BytesIO()
    pickler = dill.Pickler(out, _PROTOCOL, byref=False, recurse=False)
    pickler._main = _main()  # noqa: SLF001 - dill keeps the module that was main at its import
    pickler.reducer_override = _reduce
    pickler.dump(obj)
    return out.getvalue()


def loads(data: bytes | memoryview) -> Any:
    """Return the object that `dumps` pickled."""
    import dill

    unpickler = dill.Unpickler(io.BytesIO(data))
    unpickler._main = _main()  # noqa: SLF001
    return unpickler.load()


def dumps_state(obj: object, first: Callable[[Any], Any]) -> bytes:
    """Return dill's pickle of a checkpoint's state: `first` is asked how to reduce each object.

    What the script binds under its guard is there when the script runs again, and travels by name.
    """
    import dill

    def reduce(each: Any) -> Any:
        found = first(each)
        return _reduce(each) if found is NotImplemented else found

    names, out = guarded.copy(), io.BytesIO()
    guarded.clear()
    try:
        pickler = dill.Pickler(out, _PROTOCOL, byref=False, recurse=False)
        pickler._main = _main()  # noqa: SLF001
        pickler.reducer_override = reduce
        pickler.dump(obj)
    finally:
        guarded.update(names)
    return out.getvalue()


def loads_state(data: IO[bytes], find: Callable[..., Any]) -> Any:
    """Return what `dumps_state` pickled; `find` is asked for each class, and given dill's own way."""
    import dill

    class Unpickler(dill.Unpickler):  # type: ignore[misc]
        def find_class(self, module: str, name: str) -> Any:
            return find(module, name, super().find_class)

    unpickler = Unpickler(data)
    unpickler._main = _main()  # noqa: SLF001
    return unpickler.load()


def _main() -> types.ModuleType:
    return sys.modules["__main__"]


def _reduce(obj: Any) -> Any:
    if isinstance(obj, type | types.FunctionType):
        own = payload_deap.dispatch_table().get(type(obj))
        if own is not None:
            return own(obj)
        return obj.__qualname__ if _importable(obj) else NotImplemented
    if isinstance(obj, types.MethodType | types.BuiltinMethodType):
        if payload_deap.global_stream(obj.__self__) is not None:
            return payload_deap.dispatch_table()[type(obj)](obj)
        return NotImplemented
    if isinstance(obj, _REFUSED) and obj not in _standard_streams():
        raise pickle.PicklingError(f"cannot pickle {type(obj).__name__!r} object")
    return NotImplemented


def _standard_streams() -> tuple[object, ...]:
    return (sys.stdin, sys.stdout, sys.stderr, sys.__stdin__, sys.__stdout__, sys.__stderr__)


def _importable(obj: type | types.FunctionType) -> bool:
    found: object = sys.modules.get(obj.__module__ or "")
    if found is None or is_guarded(obj):
        return False
    for name in obj.__qualname__.split("."):
        found = getattr(found, name, None)
    return found is obj
