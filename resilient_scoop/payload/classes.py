"""Pickling of classes without importable names: made in functions, or under the script's guard.

Such a class is sent as its definition and a key (`payload.class_keys`). A process that has a class
with that key uses it, so that in one process it is one class in arguments, results and exceptions:
`isinstance`, `==` and `except` work.

Values of class attributes:

- A class that is new to a process gets all of them.
- For a call (its callable and arguments) they are set to their values when the call was made, so
  that attributes which the script changes between two calls reach the workers.
- Results, exceptions, constants and checkpoints never change a known class.
- Nor does anything change a class in the process that made it, unless what calls stands above the
  future that made it: then that future is at its end, and has given the class away.

The copy is first a class without content, which is then filled: so a class may refer to itself, as
every method with `super()` does. A metaclass other than those of Python gets all attributes at
once.
"""

from __future__ import annotations

import abc
import dataclasses
import enum
import functools
import importlib
import inspect
import pickle
import sys
import types
import typing
from collections.abc import Callable
from typing import Any, Final

import msgspec
from msgspec import structs

from resilient_scoop.adapters import weak_references
from resilient_scoop.payload import sentinels
from resilient_scoop.payload.class_keys import (
    HEAP_TYPE,
    Key,
    KnownClass,
    ProcessClasses,
    find,
    is_dynamic,
    is_importable,
    key_of,
    known_as,
    remember,
)
from resilient_scoop.values.user_code import is_user_code

_OWN_METACLASSES: Final = (type, abc.ABCMeta, type(typing.Protocol))
_NEVER_COPIED: Final = frozenset(
    {"__dict__", "__weakref__", "__slotnames__", "_abc_impl", "__annotate_func__"}
)
_KEPT_SUNDERS: Final = frozenset({"_generate_next_value_", "_missing_", "_ignore_", "_order_"})
_OWN_OF_MEMBERS: Final = frozenset({"_value_", "_name_", "__objclass__", "_sort_order_"})
_OF_STRUCTS: Final = frozenset({"__match_args__", "__slots__", "__annotations__"})
_FINAL: Final = frozenset({"_fields_", "_anonymous_", "_pack_", "_align_", "_layout_"})
"""Attributes of classes of `ctypes` that can be set only once."""
_MISSING: Final = object()
_SENTINELS: Final = {
    id(found): name
    for name in ("MISSING", "KW_ONLY", "_HAS_DEFAULT_FACTORY", "_FIELD", "_FIELD_CLASSVAR",
                 "_FIELD_INITVAR")
    if (found := getattr(dataclasses, name, None)) is not None
}  # fmt: skip
"""Objects that `dataclasses` compares by identity."""


def reduce(cls: Any) -> tuple[Any, ...]:
    """Return the reduction of a class that `is_dynamic`."""
    key = tuple(key_of(cls))  # so that a pickle names no class of ours
    bases: tuple[Any, ...] = vars(cls).get("__orig_bases__", cls.__bases__)
    if types.resolve_bases(bases) != cls.__bases__:
        bases = cls.__bases__  # NamedTuple: it represents other classes
    if issubclass(cls, enum.Enum):
        members = {name: member.value for name, member in cls.__members__.items()}
        boundary = getattr(cls, "_boundary_", None)
        made_of = (type(cls), cls.__name__, cls.__bases__, cls.__qualname__, members, boundary)
        kept = {m.name: _own_state(m) for m in cls}
        kept = {name: own for name, own in kept.items() if own}
        return make_enum, (key, *made_of), (_enum_content(cls), None, kept), None, None, fill
    space = {"__module__": cls.__module__, "__qualname__": cls.__qualname__}
    if typing.is_typeddict(cls):
        space |= {"__total__": cls.__total__, "__annotations__": cls.__annotations__}
        return make_typed_dict, (key, cls.__name__, space)
    if isinstance(cls, type(msgspec.Struct)):
        return _reduce_struct(cls, key)
    if "__slots__" in vars(cls):
        space["__slots__"] = vars(cls)["__slots__"]
    content = _content(cls)
    if type(cls) not in _OWN_METACLASSES:
        space = {**{k: v for k, v in content.items() if not _has_closure(v)}, **space}
    registered = None
    if isinstance(cls, abc.ABCMeta):
        registry = abc._get_dump(cls)[0]  # type: ignore[attr-defined]  # noqa: SLF001 - the only way to a registry of ABC
        registered = [each for ref in registry if (each := ref()) is not None]
    # The metaclass of `ctypes.Structure` cannot be found by its name; then the bases determine it.
    metaclass = type(cls) if is_importable(type(cls)) or is_dynamic(type(cls)) else None
    args = (key, metaclass, cls.__name__, bases, space)
    return make_class, args, (content, registered, None), None, None, fill


def _content(cls: type) -> dict[str, Any]:
    return {
        name: value
        for name, value in vars(cls).items()
        if name not in _NEVER_COPIED
        if not isinstance(value, types.MemberDescriptorType) and type(value).__name__ != "CField"
    }


def _reduce_struct(cls: Any, key: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return the reduction of a class derived from `msgspec.Struct`."""
    kinds = {name: each.kind for name, each in inspect.signature(cls).parameters.items()}
    own = {each.name: each for each in structs.fields(cls)}
    fields = [
        (name, kind, *_defaults(own[name]))
        for name, kind in vars(cls).get("__annotations__", {}).items()
        if name in own
    ]
    made_with = cls.__struct_config__
    config = {name: getattr(made_with, name) for name in dir(made_with) if name[0] != "_"}
    config["kw_only"] = any(kinds[each[0]] is inspect.Parameter.KEYWORD_ONLY for each in fields)
    content = {
        name: value
        for name, value in _content(cls).items()
        if not name.startswith("__struct_") and name not in _OF_STRUCTS
    }
    args = (key, cls.__name__, cls.__bases__, cls.__qualname__, fields, config)
    return make_struct, args, (content, None, None), None, None, fill


def _defaults(field: Any) -> tuple[Any, ...]:
    if field.default_factory is not msgspec.NODEFAULT:
        return True, field.default_factory
    return () if field.default is msgspec.NODEFAULT else (False, field.default)


def _has_closure(value: Any) -> bool:
    """Return whether an attribute may refer to its class through a cell, as `super()` does."""
    if isinstance(value, property):
        return any(map(_has_closure, (value.fget, value.fset, value.fdel)))
    return bool(getattr(getattr(value, "__func__", value), "__closure__", None))


def _enum_content(cls: Any) -> dict[str, Any]:
    """Return the attributes of an enumeration that its metaclass does not make from the members."""
    found = {}
    for name, value in _content(cls).items():
        is_sunder = name[:1] == name[-1:] == "_" and name[1:2] != "_"
        inherited = next((vars(b)[name] for b in cls.__mro__[1:] if name in vars(b)), _MISSING)
        if name in cls.__members__ or (is_sunder and name not in _KEPT_SUNDERS):
            continue
        if name not in ("__new__", "__new_member__") and value is not inherited:
            found[name] = value
    return found


def _own_state(member: enum.Enum) -> dict[str, Any]:
    return {name: value for name, value in vars(member).items() if name not in _OWN_OF_MEMBERS}


def reduce_other(obj: Any) -> Any:
    """Return the reduction of objects that neither pickle nor dill reduces rightly; else NotImplemented."""
    if type(obj) in weak_references.TYPES or sentinels.is_kind(type(obj)):
        return sentinels.dispatch_table()[type(obj)](obj)
    if obj is sys.modules["__main__"]:
        return importlib.import_module, ("__main__",)
    if id(obj) in _SENTINELS:
        return getattr, (dataclasses, _SENTINELS[id(obj)])
    if type(obj) is functools.cached_property:
        return make_cached_property, (obj.func, obj.attrname)
    return _type_variable(obj) if type(obj) is typing.TypeVar else NotImplemented


def _type_variable(obj: Any) -> Any:
    if getattr(sys.modules.get(obj.__module__), obj.__name__, None) is obj:
        return NotImplemented
    bounds = (obj.__bound__, obj.__covariant__, obj.__contravariant__)
    return make_type_variable, (obj.__name__, obj.__module__, obj.__constraints__, *bounds)


def make_class(
    key: tuple[Any, ...],
    metaclass: type | None,
    name: str,
    bases: tuple[Any, ...],
    space: dict[str, Any],
) -> type:
    """Return the class with this key; make it, without content, if it does not exist."""
    key = Key(*key)
    found = find(key, bases, space["__qualname__"])
    if found is not None:
        return found
    made: type = _without_hooks(bases, lambda: _new_class(metaclass, name, bases, space))
    remember(made, key, born_here=False, is_bare=True)
    return made


def _new_class(metaclass: Any, name: str, bases: tuple[Any, ...], space: dict[str, Any]) -> type:
    """Make a class without the side effects of a user's metaclass (such as registering it)."""
    if metaclass is None or not is_user_code(metaclass):
        more = {} if metaclass is None else {"metaclass": metaclass}
        return types.new_class(name, bases, more, lambda there: there.update(space))
    own = next(each for each in metaclass.__mro__ if not is_user_code(each))
    resolved = types.resolve_bases(bases)
    if resolved is not bases:
        space = {**space, "__orig_bases__": bases}
    made: type = own.__new__(metaclass, name, resolved, dict(space))
    return made


def _without_hooks(bases: tuple[Any, ...], make: Callable[[], Any]) -> Any:
    """Return the result of `make`, without calling a user's `__init_subclass__` of a base again."""
    owners = [cls for base in bases if isinstance(base, type) for cls in base.__mro__]
    hook = "__init_subclass__"
    owner = next((cls for cls in owners if hook in vars(cls)), object)
    if not is_user_code(owner):
        try:
            return make()
        except TypeError:  # it needs arguments, which the class got once
            if not owner.__flags__ & HEAP_TYPE:
                raise
    own = vars(owner)[hook]
    type.__setattr__(owner, hook, classmethod(lambda _: None))
    try:
        return make()
    finally:
        type.__setattr__(owner, hook, own)


def make_typed_dict(key: tuple[Any, ...], name: str, space: dict[str, Any]) -> type:
    """Return the `TypedDict` with this key."""
    key = Key(*key)
    found = find(key, (dict,), space["__qualname__"])
    if found is not None:
        return found
    make: Any = typing.TypedDict
    made: type = make(name, space["__annotations__"], total=space["__total__"])
    made.__module__, made.__qualname__ = space["__module__"], space["__qualname__"]
    remember(made, key, born_here=False)
    return made


def make_struct(
    key: tuple[Any, ...],
    name: str,
    bases: tuple[Any, ...],
    qualname: str,
    fields: list[Any],
    config: dict[str, Any],
) -> type:
    """Return the `msgspec.Struct` with this key; make it, with its fields only, if it does not exist."""
    key = Key(*key)
    found = find(key, bases, qualname)
    if found is not None:
        return found
    parts: list[Any] = []
    for field, kind, *default in fields:
        if default:
            is_factory, value = default
            more = {"default_factory": value} if is_factory else {"default": value}
            parts.append((field, kind, msgspec.field(**more)))
        else:
            parts.append((field, kind))
    made: type = msgspec.defstruct(name, parts, bases=bases, module=key.module, **config)
    made.__qualname__ = qualname
    remember(made, key, born_here=False, is_bare=True)
    return made


def make_enum(  # noqa: PLR0913, PLR0917 - a pickle's arguments
    key: tuple[Any, ...],
    metaclass: Any,
    name: str,
    bases: tuple[Any, ...],
    qualname: str,
    members: dict[str, Any],
    boundary: Any,
) -> type:
    """Return the enumeration with this key; make it, with its members only, if it does not exist."""
    key = Key(*key)
    found = find(key, bases, qualname)
    if found is not None:
        return found
    space = metaclass.__prepare__(name, bases)
    space["__module__"], space["__qualname__"] = key.module, qualname
    for member, value in members.items():
        space[member] = value
    more = {} if boundary is None else {"boundary": boundary}
    made: type = metaclass(name, bases, space, **more)
    remember(made, key, born_here=False, is_bare=True)
    return made


def fill(cls: Any, state: tuple[dict[str, Any], list[type] | None, Any]) -> None:
    """Set the attributes of a class, if they are to be set here (see above)."""
    known = known_as(cls)
    if not known.is_bare and not (ProcessClasses.is_call and _may_change(known)):
        return
    known.is_bare = False
    content, registered, members = state
    for name, value in content.items():
        if vars(cls).get(name, _MISSING) is not value:
            _set(cls, name, value)
    kept = content.keys() | getattr(cls, "__members__", {}).keys()
    for name in _content(cls).keys() - kept:
        if not name[:1] == name[-1:] == "_":
            type.__delattr__(cls, name)
    for each in registered or ():
        cls.register(each)
    for name, own in (members or {}).items():
        vars(cls[name]).update(own)


def _set(cls: Any, name: str, value: Any) -> None:
    try:
        type.__setattr__(cls, name, value)
    except TypeError:  # a class of a metaclass in C
        if not (name in _FINAL and name in vars(cls)):
            setattr(cls, name, value)


def _may_change(known: KnownClass) -> bool:
    if not known.born_here or not known.key.where:
        return True
    caller = ProcessClasses.place().path.rpartition(".")[0]
    return bool(caller) and known.key.where.startswith(f"{caller}.")


def make_cached_property(function: Any, name: str | None) -> Any:
    """Return a `functools.cached_property` (that of Python 3.11 holds a lock)."""
    made: Any = functools.cached_property(function)
    made.attrname = name
    return made


def make_type_variable(
    name: str,
    module: str,
    constraints: tuple[Any, ...],
    bound: Any,
    covariant: bool,  # noqa: FBT001 - called by unpickling, with positions
    contravariant: bool,  # noqa: FBT001 - called by unpickling, with positions
) -> Any:
    """Return a type variable that cannot be found by a name."""
    made = typing.TypeVar(  # type: ignore[misc]  # mypy wants literal arguments
        name, *constraints, bound=bound, covariant=covariant, contravariant=contravariant
    )
    made.__module__ = module
    return made


def refuse_cycle(cls: type) -> pickle.PicklingError:
    """Return the error for a class that would be needed before it can be made."""
    return pickle.PicklingError(
        f"class {cls.__qualname__} refers to itself in its bases, its metaclass or what its "
        "metaclass needs; define it at the top level of the script"
    )
