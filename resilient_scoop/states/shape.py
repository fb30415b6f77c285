"""What fields a class says its instances have, to see whether it has changed since they were saved.

| class | its fields |
| --- | --- |
| dataclass, attrs class, msgspec struct, named tuple | the declared ones, in order |
| any other | what it annotates, its `__slots__`, and what its `__init__` sets on `self`; bases first |

A class that makes or takes its own pickles (`__reduce__`, `__reduce_ex__`, `__setstate__`) has its
own way of dealing with old ones, and no fields here; neither have classes of Python and of
installed packages.
"""

from __future__ import annotations

import dataclasses
import dis
import types
import typing
from typing import Any, Final

from resilient_scoop.values.user_code import is_user_code

HOOK: Final = "__rscoop_migrate__"
_OWN: Final = ("__reduce__", "__reduce_ex__", "__setstate__")
_MISSING: Final = object()


def name_of(cls: type) -> str:
    """Return how a class is called in pickles."""
    return f"{cls.__module__}:{cls.__qualname__}"


def fields_of(cls: type) -> list[str] | None:
    """Return the fields of a class of the user's; None where it is not ours to compare them."""
    if not is_user_code(cls) or _pickles_itself(cls):
        return None
    declared = _declared(cls)
    return list(dict.fromkeys(_found(cls) if declared is None else declared))


def default_of(cls: type, field: str) -> Any:
    """Return a new default of a field; LookupError if it has none."""
    if dataclasses.is_dataclass(cls):
        for each in dataclasses.fields(cls):
            if each.name == field and each.default is not dataclasses.MISSING:
                return each.default
            if each.name == field and each.default_factory is not dataclasses.MISSING:
                return each.default_factory()
        raise LookupError(field)
    if field in getattr(cls, "_field_defaults", ()):
        return cls._field_defaults[field]  # type: ignore[attr-defined]
    found = next((vars(base)[field] for base in cls.__mro__ if field in vars(base)), _MISSING)
    if found is _MISSING or isinstance(found, types.MemberDescriptorType):
        raise LookupError(field)
    return found


def is_named_tuple(cls: type) -> bool:
    """Tell whether a class is a named tuple."""
    return issubclass(cls, tuple) and isinstance(getattr(cls, "_fields", None), tuple)


def _pickles_itself(cls: type) -> bool:
    if is_named_tuple(cls) or hasattr(cls, "__struct_fields__"):
        return False
    for name in _OWN:
        found = next((vars(base)[name] for base in cls.__mro__ if name in vars(base)), None)
        module = getattr(found, "__module__", None) or getattr(found, "__objclass__", object)
        if found is None or module in (object, "dataclasses") or name == "__getstate__":
            continue
        if getattr(found, "__objclass__", None) is object:
            continue
        return not _is_generated(cls, name, found)
    return False


def _is_generated(cls: type, name: str, found: object) -> bool:
    """Tell whether a method was made by attrs, for classes with slots."""
    del name
    module = getattr(getattr(found, "__code__", None), "co_filename", "")
    return hasattr(cls, "__attrs_attrs__") and "attr" in module


def _declared(cls: type) -> list[str] | None:
    if dataclasses.is_dataclass(cls):
        return [each.name for each in dataclasses.fields(cls)]
    attrs = getattr(cls, "__attrs_attrs__", None)
    if attrs is not None:
        return [each.name for each in attrs]
    struct = getattr(cls, "__struct_fields__", None)
    if struct is not None:
        return list(struct)
    return list(cls._fields) if is_named_tuple(cls) else None  # type: ignore[attr-defined]


def _found(cls: type) -> list[str]:
    names: list[str] = []
    for base in reversed(cls.__mro__):
        if not is_user_code(base):
            continue
        space = vars(base)
        for name, kind in space.get("__annotations__", {}).items():
            if typing.get_origin(kind) is not typing.ClassVar and "ClassVar" not in str(kind):
                names.append(name)
        slots = space.get("__slots__", ())
        names += [slots] if isinstance(slots, str) else list(slots)
        init = space.get("__init__")
        if isinstance(init, types.FunctionType):
            names += _set_in(init.__code__)
    return [name for name in names if name not in ("__dict__", "__weakref__")]


def _set_in(code: types.CodeType) -> list[str]:
    """Return the attributes that a method sets on its first argument."""
    if not code.co_argcount:
        return []
    me, names, before = code.co_varnames[0], [], None
    for step in dis.get_instructions(code):
        if step.opname == "STORE_ATTR" and before == me:
            names.append(str(step.argval))
        before = step.argval if step.opname in ("LOAD_FAST", "LOAD_FAST_CHECK") else None
        if step.opname == "LOAD_FAST_LOAD_FAST" and isinstance(step.argval, tuple):
            before = step.argval[-1]
    return names
