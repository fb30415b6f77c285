"""Pickling by reference of classes that DEAP makes at run time, and of the global random streams.

Plain pickle sends a `deap.creator` class by value, and every received copy replaces
`creator.Individual`: `isinstance` fails afterwards and classes accumulate. It names an ephemeral
constant of `deap.gp` by its `id()` in the sending process, which may belong to another class here.
It copies the state of `random` into every `partial(random.randint, 0, 1)` of a toolbox, so that all
items would draw the same numbers. Here the receiver looks each of them up; only missing ones are
made.

Invariant: the same definition always gives the same class object.
"""

from __future__ import annotations

import copyreg
import io
import pickle
import random
import sys
from types import BuiltinMethodType, MethodType
from typing import Any, Final

from resilient_scoop.adapters import bound_methods, former_names, weak_references

_PROTOCOL: Final = 5
_GLOBAL_RANDOM: Final = random.random.__self__  # type: ignore[attr-defined]  # a bound method

_definitions: dict[type, bytes] = {}
_arrived: dict[tuple[str, bytes], type] = {}
_table: dict[type, Any] = {}
_table_of: tuple[int, bool, bool] = (0, False, False)


def dispatch_table() -> dict[type, Any]:
    """Return the table of reductions: ours, then those of copyreg; do not change it."""
    global _table, _table_of
    state = (len(copyreg.dispatch_table), "deap.creator" in sys.modules, "deap.gp" in sys.modules)
    if state != _table_of:
        table: dict[type, Any] = {**copyreg.dispatch_table}
        table[MethodType] = table[BuiltinMethodType] = _reduce_method
        table.update(dict.fromkeys(weak_references.TYPES, weak_references.reduce))
        if state[1]:
            table[sys.modules["deap.creator"].MetaCreator] = _reduce_creator
        if state[2]:
            table[sys.modules["deap.gp"].MetaEphemeral] = _reduce_ephemeral
        _table, _table_of = table, state
    return _table


def global_stream(owner: object) -> str | None:
    """Return the module with the process-wide random stream `owner`, or None."""
    if owner is _GLOBAL_RANDOM:
        return "random"
    mtrand = sys.modules.get("numpy.random.mtrand")
    if mtrand is not None and owner is getattr(mtrand, "_rand", None):
        return "numpy.random"
    return None


def random_function(module: str, name: str) -> Any:
    """Return the function `name` of the process-wide random stream of `module`, here."""
    __import__(module)
    return getattr(sys.modules[module], name)


def creator_class(name: str, definition: bytes) -> type:
    """Return the class of `deap.creator` with this definition; make it if it does not exist."""
    found = _arrived.get((name, definition))
    if found is not None:
        return found
    from deap import creator

    here: Any = getattr(creator, name, None)
    if not isinstance(here, creator.MetaCreator) or _definition(here) != definition:
        here = creator.meta_create(*former_names.load(definition))
    made: type = here
    _arrived[name, definition] = made
    return made


def ephemeral_class(name: str, definition: bytes) -> type:
    """Return the ephemeral constant with this name: in DEAP a name belongs to one function."""
    from deap import gp

    for known in list(gp.MetaEphemeral.cache.values()):
        if known.name == name:
            return known  # type: ignore[no-any-return]  # DEAP has no types
    if not definition:
        raise pickle.UnpicklingError(
            f"the ephemeral constant {name!r} is not defined here, and its function cannot travel; "
            f"call addEphemeralConstant at the top level of the script"
        )
    return gp.MetaEphemeral(name, *former_names.load(definition))  # type: ignore[no-any-return]  # DEAP has no types


def _reduce_method(method: Any) -> Any:
    owner = method.__self__
    module = global_stream(owner)
    if module is not None:
        return random_function, (module, method.__name__)
    return bound_methods.reduce(method)


def _reduce_creator(cls: Any) -> Any:
    return creator_class, (cls.__name__, _definition(cls))


def _reduce_ephemeral(cls: Any) -> Any:
    definition = _definitions.get(cls)
    if definition is None:
        try:
            definition = _pickle((cls.func, cls.ret))
        except (pickle.PicklingError, AttributeError, TypeError):
            definition = b""  # a lambda: the receiver must find it by name
        _definitions[cls] = definition
    return ephemeral_class, (cls.name, definition)


def _definition(cls: Any) -> bytes:
    definition = _definitions.get(cls)
    if definition is None:
        definition = _definitions[cls] = _pickle(cls.reduce_args)
    return definition


def _pickle(obj: object) -> bytes:

    out = io.BytesIO()
    pickler = pickle.Pickler(out, _PROTOCOL)
    pickler.dispatch_table = dispatch_table()
    pickler.dump(obj)
    return out.getvalue()
