"""Digests of the values that a function refers to, in which functions and classes count by name.

An object in the user's module that has a name is described separately, as its own reference; a
value that contains it only names it. An object without a name (a lambda in a list, a local class)
is described inside the value.

Some objects have no value to compare: locks, loggers, open files. They count by their type. So do
random generators: the items of a batch are seeded separately.
"""

from __future__ import annotations

import abc
import contextvars
import dataclasses
import functools
import io
import os
import queue
import random
import sys
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from types import CellType, CodeType, FunctionType, ModuleType
from typing import Any, Final

from resilient_scoop.adapters.canonical import Canon, module_name
from resilient_scoop.adapters.stand_ins import original_of
from resilient_scoop.hashing import blake2b
from resilient_scoop.values import hidden_state, open_files, source, source_text
from resilient_scoop.values.user_code import describe, is_user_code, version
from resilient_scoop.values.user_modules import scope_of

DIGEST_BYTES: Final = 12
SCALARS: Final = frozenset({int, float, str, bytes, bool, type(None), complex})
MISSING: Final = object()
CACHED: Final = type(functools.lru_cache(lambda: None))
GENERATED: Final = "<string>"
_ABSENT_FROM_CLASSES: Final = frozenset(
    [
        "__dict__",
        "__weakref__",
        "__doc__",
        "__module__",
        "__qualname__",
        "__annotations__",
        "__firstlineno__",
        "__static_attributes__",
        "__abstractmethods__",
        "_abc_impl",
        "__parameters__",
        "__orig_bases__",
        "__annotate__",
        "__annotate_func__",
        "__annotations_cache__",
        "__slotnames__",
        "_value2member_map_",
        "_unhashable_values_",
        "__classcell__",
        "__type_params__",
        "_hashable_values_",
        # of pydantic, which makes them from the fields; they hold ids of objects
        "__pydantic_core_schema__",
        "__pydantic_serializer__",
        "__pydantic_validator__",
    ]
)
_MADE_BY_C: Final = frozenset({"member_descriptor", "getset_descriptor", "CField"})
"""Types of the class attributes for slots and fields."""
_DATACLASS: Final = "__dataclass_fields__"
_FIELD_PARTS: Final = ("default", "default_factory", "init", "repr", "hash", "compare", "kw_only")
_PARAMETERS: Final = "__dataclass_params__"
_SET: Final = ("init", "repr", "eq")
"""Options of a dataclass that are true by default."""
_UNSET: Final = ("order", "unsafe_hash", "frozen")
_OPAQUE: Final[tuple[type, ...]] = (
    type(threading.Lock()), type(threading.RLock()), threading.Condition, threading.Event,
    threading.Semaphore, threading.Barrier, threading.Thread, threading.local, io.IOBase,
    queue.Queue, queue.SimpleQueue, weakref.WeakKeyDictionary, weakref.ProxyType, weakref.WeakMethod,
    random.Random, contextvars.ContextVar,
)  # fmt: skip
_IN_MEMORY: Final = (io.StringIO, io.BytesIO)
_OF_BEARTYPE: Final = ("__beartype_call", "__beartype_conf")
"""Keyword defaults of the wrappers that beartype makes; they differ in each process."""
_LOGGING_LIBRARIES: Final = ("loguru.", "structlog.")
_OF_LOGGING: Final = ("Logger", "LoggerAdapter", "Handler")
Reach = Callable[[str, Any], None]


class _Absent:
    """The type of `ABSENT`; pickles by that name."""

    def __reduce__(self) -> str:
        return "ABSENT"


ABSENT: Final = _Absent()
"""Represents a name that the script has deleted from a module."""


def digest_of(*parts: bytes) -> bytes:
    """Return the digest (DIGEST_BYTES) of parts in this order."""
    hasher = blake2b(digest_size=DIGEST_BYTES)
    for part in parts:
        hasher.update(len(part).to_bytes(8, "little") + part)
    return hasher.digest()


def own_home(obj: Any) -> str | None:
    """Return `module:qualname` of a function or class that can be found by it, else None."""
    name, qualname = getattr(obj, "__module__", None), getattr(obj, "__qualname__", "<")
    if name is None and isinstance(obj, FunctionType):
        name = "__main__"  # made by `exec`; pickle looks for it there, too
    if not isinstance(name, str) or not isinstance(qualname, str) or "<" in qualname:
        return None
    found: Any = sys.modules.get(name)
    if found is None:
        return None
    for part in qualname.split("."):
        found = getattr(found, part, None)
    return f"{module_name(obj)}:{qualname}" if found is obj else None


def is_opaque(value: Any) -> bool:
    """Return whether a value can be compared only by its type."""
    return is_opaque_type(type(value))


def _is_of_logging(kind: type, names: Iterable[str]) -> bool:
    """Return whether a type is one of `logging`, whose import takes each process some milliseconds."""
    module = sys.modules.get("logging")
    return module is not None and issubclass(
        kind, tuple(getattr(module, name, ()) for name in names)
    )


def is_opaque_type(kind: type) -> bool:
    """Return whether values of this type can be compared only by their type."""
    if issubclass(kind, _IN_MEMORY):
        return False
    if kind is object or issubclass(kind, _OPAQUE) or _is_of_logging(kind, _OF_LOGGING):
        return True
    module = kind.__module__
    if module.startswith(("numpy.random", "filelock.", *_LOGGING_LIBRARIES)):
        return True
    return module in ("_socket", "socket", "_asyncio") or hidden_state.is_shared(kind)


def is_of_library(value: object) -> bool:
    """Return whether the type of a value is neither the user's nor built in."""
    kind = type(value)
    return kind.__module__ != "builtins" and not is_user_code(kind)


def is_immutable(value: object) -> bool:
    """Return whether a value cannot change while it is the same object."""
    if type(value) is tuple or type(value) is frozenset:
        return all(map(is_immutable, value))
    return type(value) in SCALARS


class Describer:
    """Describes values; `reach` is called for each named object of the user that is found.

    Without `states`, events, queues and shared values count by their type.
    """

    def __init__(self, reach: Reach, *, states: bool = True) -> None:
        self.reach = reach
        self._states = states
        self.met_state = False  # since it was last reset
        self.met_incomparable = False
        self.met_initialized = False  # an object that counts by its type, but was made from values
        self.with_streams = False  # random generators count by their state
        self._is_lenient = False
        self._canon = self._make_canon(lenient=False)
        self._lenient: Canon | None = None
        self._inside: dict[int, int] = {}  # objects being described in place -> their numbers

    def _make_canon(self, *, lenient: bool) -> Canon:
        return Canon(
            self.function_key, self.class_key, is_opaque_type, self._met_module, self._state,
            lenient=lenient,
        )  # fmt: skip

    def _state(self, value: Any) -> bytes:
        if hidden_state.is_initialized(value):
            self.met_initialized = True
            return hidden_state.state_of_stream(value) if self.with_streams else b""
        found = hidden_state.state_of(value) if self._states else b""
        self.met_state = self.met_state or bool(found)
        return found

    def here(self, value: Any, *, attribute: bool = False) -> bytes:
        """Return a digest to compare with another process of the run.

        In it, what cannot be compared counts by its type (`met_incomparable`).
        """
        before, self._is_lenient = self._is_lenient, True
        try:
            found = self.attribute(value) if attribute else self.value(value)
        finally:
            self._is_lenient = before
        return opaque(value) if found is None else found

    def end(self) -> None:
        """Drop all references: in their cycles, what was described would live until a collection."""
        vars(self).clear()

    def value(self, value: Any) -> bytes | None:
        """Return the digest of a value, or None if it cannot be compared."""
        if is_opaque(value):
            return opaque(value, self._state(value))
        if open_files.is_mapped(value):
            return digest_of(b"mapped", open_files.mapping_of(value))
        if isinstance(value, ModuleType):
            self.holds_module(value)
            return digest_of(b"module", value.__name__.encode())
        found = self._canon.digest(value)
        if found is None and self._is_lenient:
            self.met_incomparable = True
            if self._lenient is None:
                self._lenient = self._make_canon(lenient=True)
            found = self._lenient.digest(value)
            return opaque(value) if found is None else found[:DIGEST_BYTES]
        return None if found is None else found[:DIGEST_BYTES]

    def part(self, value: Any) -> bytes:
        """Return the digest of a part of an object; a unique one if it cannot be compared.

        An object of a library that cannot be compared counts as in `here`: how it is made is in the source
        of the user's module, which is compared as well.
        """
        found = self.value(value)
        if found is None and is_of_library(value):
            before = self.met_incomparable
            found = self.here(value)
            self.met_incomparable = before
        return unique() if found is None else found

    def function_key(self, function: Any) -> bytes:
        """Return the description of a function (or a cached one), or its name."""
        home = own_home(function)
        if home is not None:
            if is_user_code(function):
                self.reach(home, function)
            return f"@{home}".encode()
        return self.inline(function)

    def class_key(self, cls: type) -> bytes | None:
        """Return the description of a user's class; None for others, which count by name."""
        if type(cls).__name__ == "MetaCreator":  # DEAP's: described by its definition
            return digest_of(cls.__name__.encode(), self.part(cls.reduce_args))  # type: ignore[attr-defined]  # DEAP sets it
        if not is_user_code(cls):
            return None
        home = own_home(cls)
        if home is not None:
            self.reach(home, cls)
            return f"@{home}".encode()
        return self._guarded(cls, self._class_inline)

    def inline(self, function: Any) -> bytes:
        """Return the digest of a function that has no name of its own."""
        if type(function) is CACHED:
            parameters = repr(function.cache_parameters()).encode()
            return digest_of(b"cached", parameters, self.function_key(function.__wrapped__))
        return self._guarded(function, self._function_inline)

    def _guarded(self, obj: Any, describe_it: Callable[[Any], bytes]) -> bytes:
        number = self._inside.get(id(obj))
        if number is not None:
            return b"^%d" % number
        self._inside[id(obj)] = len(self._inside)
        try:
            return describe_it(obj)
        finally:
            del self._inside[id(obj)]

    def _function_inline(self, function: Any) -> bytes:
        parts = [text_of(function)]
        for name, value in carried(function):
            parts += [name.encode(), self.part(value)]
        self.names_of(function)
        return digest_of(b"inline", *parts)

    def names_of(self, function: Any) -> None:
        """Call `reach` for what a function finds by global names; overridden by the survey."""

    def _met_module(self, module: ModuleType) -> bytes:
        self.holds_module(module)
        return b""

    def holds_module(self, module: ModuleType) -> None:
        """Notice a module in a value; overridden by the survey."""

    def _class_inline(self, cls: type) -> bytes:
        parts = [self.class_header(cls), cls.__qualname__.encode()]
        for name, value in attributes_of(cls):
            parts += [name.encode(), self.attribute(value)]
        return digest_of(b"class", *parts)

    def class_header(self, cls: type) -> bytes:
        """Return the digest of a class without its attributes."""
        bases = [self.class_key(base) or describe(base).encode() for base in cls.__bases__]
        kind = self.class_key(type(cls)) or describe(type(cls)).encode()
        names = vars(cls).get("__annotations__", {})
        fields = ""
        if _DATACLASS in vars(cls):
            fields = ",".join(names)
        elif vars(cls).get("_is_protocol"):  # its names are what `isinstance` looks for
            fields = ",".join(sorted(names))
        options = [each.encode() for each in _options_of(cls)]
        return digest_of(kind, fields.encode(), *bases, *self._registered(cls), *options)

    def _registered(self, cls: type) -> list[bytes]:
        """Return the description of the classes that are registered with an abstract one."""
        if not isinstance(cls, abc.ABCMeta):
            return []
        found = [ref() for ref in abc._get_dump(cls)[0]]  # type: ignore[attr-defined]  # noqa: SLF001 - the only way to a registry of ABC
        names = sorted(describe(each) for each in found if each is not None)
        return [b"registered", *(name.encode() for name in names)] if names else []

    def attribute(self, value: Any) -> bytes:
        """Return the digest of an attribute of a class."""
        value = original_of(value)
        if isinstance(value, FunctionType | CACHED):
            return self.inline(value)
        if type(value) is dict and any(
            isinstance(each, dataclasses.Field) for each in value.values()
        ):
            return self.part([_parts_of(each) for each in value.values()])
        inner = list(_wrapped_by(value))
        if not inner:
            return self.part(value)
        keys = [
            self.inline(each) if isinstance(each, FunctionType) else self.part(each)
            for each in inner
        ]
        return digest_of(type(value).__qualname__.encode(), *keys)


def opaque(value: object, state: bytes = b"") -> bytes:
    """Return the digest of an object that counts by its type; loggers and file locks also by name."""
    kind = type(value)
    name = getattr(value, "name", "") if _is_of_logging(kind, ("Logger",)) else ""
    if kind.__module__.startswith("filelock."):
        name = str(getattr(value, "lock_file", ""))
    parts = (kind.__module__.encode(), kind.__qualname__.encode(), name.encode())
    return digest_of(b"opaque", *parts, *([state] if state else ()))


def unique() -> bytes:
    """Return a digest that equals no other: a value that cannot be compared never counts as equal."""
    return os.urandom(DIGEST_BYTES)


def text_of(function: Any, *, by_position: bool = False) -> bytes:
    """Return the source of a user's function, or its bytecode if there is none; else its library's version.

    With `by_position`, the names of its parameters do not count.
    """
    code: CodeType = function.__code__
    if not is_user_code(function):
        return f"{describe(function)} {version(module_name(function).partition('.')[0])}".encode()
    found = source_text.of_function(code, by_position=by_position)
    text = f"bytecode {source.bytecode(code)}" if found is None else found.text
    return text.encode("utf-8", "surrogatepass")


def carried(function: Any) -> Iterator[tuple[str, Any]]:
    """Yield (label, value) of a function's defaults, closure cells and attributes."""
    code: CodeType = function.__code__
    arguments = code.co_varnames[: code.co_argcount]
    defaults = function.__defaults__ or ()
    yield from zip(arguments[len(arguments) - len(defaults) :], defaults, strict=True)
    for name, value in sorted((function.__kwdefaults__ or {}).items()):
        if not name.startswith(_OF_BEARTYPE):
            yield name, value
    found = source_text.of_function(code) if is_user_code(function) else None
    places = {} if found is None else {name: at for at, name in enumerate(found.renamed)}
    cells = zip(code.co_freevars, function.__closure__ or (), strict=True)
    for name, cell in sorted(cells, key=lambda each: (places.get(each[0], -1), each[0])):
        value = content(cell)
        if value is not MISSING:
            yield (f"closure {places[name]}" if name in places else name), value
    for name, value in sorted(vars(function).items()):
        if name not in ("__wrapped__", "__doc__", "__type_params__"):
            yield f".{name}", value


def own_names(function: Any) -> Iterator[tuple[str, Any]]:
    """Yield the globals that a function uses from its own namespace, which is not a module (`exec`)."""
    scope = function.__globals__
    if scope_of(str(scope.get("__name__"))) is not scope:
        for name in sorted(source_text.global_loads(function.__code__)):
            if name in scope:
                yield name, scope[name]


def content(cell: CellType) -> Any:
    """Return the content of a closure cell, or MISSING."""
    try:
        return cell.cell_contents
    except ValueError:  # not assigned yet
        return MISSING


def attributes_of(cls: type) -> Iterator[tuple[str, Any]]:
    """Yield the names and raw values of a class's own attributes, without generated ones."""
    for name, value in sorted(vars(cls).items()):
        if name in _ABSENT_FROM_CLASSES or type(value).__name__ in _MADE_BY_C:
            continue
        if not (name.startswith("__") and _is_generated(cls, name, value)):
            yield name, value


def _is_generated(cls: type, name: str, value: Any) -> bool:
    """Return whether Python or a decorator made an attribute, so that the rest of the class tells it."""
    held = vars(cls)
    if name == "__hash__" and value is None:
        return "__eq__" in held
    if name == "__match_args__":
        fields = held[_DATACLASS].values() if _DATACLASS in held else ()
        by_position = tuple(each.name for each in fields if each.init and not each.kw_only)
        return bool(value == (by_position if _DATACLASS in held else held.get("_fields")))
    if _DATACLASS not in held or name == _DATACLASS:
        return False
    code = getattr(value, "__code__", None)
    return name == _PARAMETERS if code is None else bool(code.co_filename == GENERATED)


def _options_of(cls: type) -> list[str]:
    """Return the options of a dataclass that are not the default ones."""
    options = vars(cls).get(_PARAMETERS)
    if options is None:
        return []
    found = [f"not {each}" for each in _SET if not getattr(options, each)]
    found += [each for each in _UNSET if getattr(options, each)]
    return found if "__match_args__" in vars(cls) else [*found, "not match_args"]


def _parts_of(field: Any) -> tuple[str, list[Any]]:
    """Return the relevant parts of a dataclass field: all but its annotation."""
    parts = [getattr(field, part) for part in _FIELD_PARTS]
    return field.name, [*parts, dict(field.metadata)] if field.metadata else parts


def _wrapped_by(value: Any) -> Iterator[Any]:
    """Yield the parts of a known descriptor of a class."""
    match value:
        case staticmethod() | classmethod():
            yield value.__func__
        case property():
            yield from (value.fget, value.fset, value.fdel)
        case functools.cached_property():
            yield value.func
        case functools.partialmethod():
            yield from (value.func, value.args, value.keywords)
        case functools.singledispatchmethod():
            yield from (value.func, value.dispatcher)
        case _:
            return
