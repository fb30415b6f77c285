"""One digest per value: equal values give equal digests in every process, whatever PYTHONHASHSEED.

Pickle bytes are unsuitable: they depend on which equal objects are the same object, the order of
sets, and ids and internal states. There are two methods, chosen by the value alone:

- the C pickler in its `fast` mode, which keeps no memo, so that sharing does not show; functions,
  classes and arrays are replaced by names, fingerprints and raw buffers. For all but:
- values that hold sets, weak references or cycles, and what plain pickle refuses: `_Walker`, in Python.
  What a weak reference refers to counts, if it has a canonical form. A cyclic
  value is walked by number of first visit, so there (only) sharing of mutable objects shows.

A value without a canonical form has the digest None: what cannot be pickled without dill's help, a
set whose elements form cycles with it, nesting beyond Python's stack.

The name of this module and of `mark` are part of the digests: a resume of a run of an earlier version
finds results by them. So both stay as they are.
"""

from __future__ import annotations

import copyreg
import pickle
import struct
import sys
from collections.abc import Callable, Iterable
from functools import lru_cache
from types import (
    BuiltinMethodType,
    EllipsisType,
    FunctionType,
    MappingProxyType,
    MethodType,
    ModuleType,
    NotImplementedType,
)
from typing import Any, Final

from resilient_scoop.adapters import weak_references
from resilient_scoop.adapters.deap_classes import global_stream
from resilient_scoop.adapters.stand_ins import original_of
from resilient_scoop.hashing import blake2b, sha256

SIZE_BYTES: Final = 16

_PROTOCOL: Final = 5
_SMALL_BYTES: Final = 1 << 16
_OUTPUT_MAX_BYTES: Final = 16 << 20
_NODES_MAX: Final = 5_000_000
_SET_OPCODES: Final = (b"\x8f", b"\x91")
_RAW_KINDS: Final = frozenset("biufcSUMm")
FunctionKey = Callable[[Any], bytes]
ClassKey = Callable[[type], bytes | None]
ModuleKey = Callable[[ModuleType], bytes]


class _HoldsSetError(Exception):
    """The value holds a set, whose order must not affect the digest, or a weak reference."""


class _CyclicError(Exception):
    """The value contains itself."""


class _NoFormError(Exception):
    """The value has no canonical form."""


class _OverrunError(Exception):
    """Shared parts, written at each occurrence, make too much output."""


def by_name(_cls: type) -> bytes | None:
    """Represent a class by its name."""
    return None


def never_opaque(_kind: type) -> bool:
    """Return False: every object counts by its value."""
    return False


def no_state(_obj: object) -> bytes:
    """Return nothing: opaque objects count by their type alone, modules by their name."""
    return b""


def _nothing() -> None:
    """Be cached, to show the type of what `functools.lru_cache` makes."""


class Canon:
    """Digests of values; `function_key` returns the key of a function, which depends on its code.

    `class_key` does so for classes; if it returns None, a class counts by its name. Modules count by
    their name and what `module_key` returns. Objects of a
    type for which `is_opaque` holds count by their type and what `state_of` returns. With `lenient`,
    so do objects of libraries that cannot be pickled; else what holds one has no digest.
    """

    def __init__(
        self,
        function_key: FunctionKey,
        class_key: ClassKey = by_name,
        is_opaque: Callable[[type], bool] = never_opaque,
        module_key: ModuleKey = no_state,
        state_of: Callable[[Any], bytes] = no_state,
        *,
        lenient: bool = False,
    ) -> None:
        self._keys = (function_key, class_key, is_opaque, module_key, state_of, lenient)
        self._idle: list[_Encoder] = []

    def digest(self, obj: object, pickled_bytes: int = 0) -> bytes | None:
        """Return the value's digest (SIZE_BYTES); `pickled_bytes` is the size of its pickle."""
        encoder = self._idle.pop() if self._idle else _Encoder(_Rules(*self._keys), _HashSink())
        encoder.sink.start(_OUTPUT_MAX_BYTES + 8 * pickled_bytes)
        try:
            encoder.dump(obj)
        except Exception:  # noqa: BLE001 - pickling runs user code; the slow way decides
            return self._walk(obj)
        found: bytes = encoder.sink.digest()
        suspicious = encoder.sink.suspicious
        encoder.sink.start(0)
        self._idle.append(encoder)
        if suspicious and self._holds_set(obj):
            return self._walk(obj)
        return found

    def _holds_set(self, obj: object) -> bool:
        try:
            _SetFinder(_Rules(*self._keys), _Nowhere()).dump(obj)
        except _HoldsSetError:
            return True
        return False

    def _walk(self, obj: object) -> bytes | None:
        rules = _Rules(*self._keys)
        try:
            try:
                return _Walker(rules, numbered=False).digest(obj)
            except _CyclicError:
                return _Walker(rules, numbered=True).digest(obj)
        except Exception:  # noqa: BLE001 - user code's reductions; then the value is not compared
            return None


class _HashSink:
    """Hashes what the pickler writes; small output is hashed at once."""

    __slots__ = ("_first", "_hasher", "_left", "suspicious")

    def start(self, limit_bytes: int) -> None:
        self._first: Any = None
        self._hasher: Any = None
        self._left = limit_bytes
        self.suspicious = False

    def write(self, chunk: Any) -> None:
        if type(chunk) is bytes:
            self._left -= len(chunk)
            if self._left < 0:
                raise _OverrunError
            if _SET_OPCODES[0] in chunk or _SET_OPCODES[1] in chunk:
                self.suspicious = True
        if self._first is None:
            self._first = chunk
            return
        if self._hasher is None:
            self._hasher = sha256(self._first)
        self._hasher.update(chunk)

    def digest(self) -> bytes:
        if self._hasher is not None:
            whole: bytes = self._hasher.digest()
            return whole[:SIZE_BYTES]
        return _hash(self._first)


class _Nowhere:
    def write(self, chunk: object) -> None:
        pass


def _hash(data: bytes) -> bytes:
    """Return the digest; SHA-256 is faster for much data if the processor supports it."""
    if len(data) > _SMALL_BYTES:
        return sha256(data).digest()[:SIZE_BYTES]
    return blake2b(data, digest_size=SIZE_BYTES).digest()


def mark(*parts: object) -> tuple[object, ...]:
    """Mark the replacement of an object; never called."""
    return parts


class _Rules:
    """Objects that are encoded differently from their own reduction."""

    def __init__(
        self,
        function_key: FunctionKey,
        class_key: ClassKey,
        is_opaque: Callable[[type], bool],
        module_key: ModuleKey,
        state_of: Callable[[Any], bytes],
        lenient: bool,  # noqa: FBT001 - the order of `_keys`
    ) -> None:
        self._module_key = module_key
        self._state_of = state_of
        self.is_lenient = lenient
        self._function_key = function_key
        self._class_key = class_key
        self._is_opaque = is_opaque
        self._by_type: dict[type, Callable[[Any], Any]] = {
            FunctionType: self._function,
            type(lru_cache(_nothing)): self._function,
            MethodType: self._method,
            BuiltinMethodType: self._builtin,
            MappingProxyType: _mapping,
            ModuleType: self._module,
            type: self._class,
        }

    def reduce(self, obj: Any) -> Any:
        kind = type(obj)
        rule = self._by_type.get(kind)
        if rule is None:
            rule = self._by_type[kind] = self._rule_of(kind)
        return rule(obj)

    def _rule_of(self, kind: type) -> Callable[[Any], Any]:
        if issubclass(kind, type):
            return _ephemeral if kind.__name__ == "MetaEphemeral" else self._class
        if issubclass(kind, ModuleType):
            return self._module
        if self._is_opaque(kind):
            return self.opaque
        if kind.__module__.startswith("numba."):
            return self._compiled
        return _rule_of(kind)

    def is_of_user(self, kind: type) -> bool:
        """Return whether a class has a key, and not only a name."""
        return self._class_key(kind) is not None

    def opaque(self, obj: Any) -> Any:
        """Return the replacement of an object that counts by its type."""
        kind, state = type(obj), self._state_of(obj)
        return mark, ("opaque", kind.__module__, kind.__qualname__, *([state] if state else ()))

    def _class(self, cls: type) -> Any:
        key = self._class_key(cls)
        return mark, ("class", *([module_name(cls), cls.__qualname__] if key is None else [key]))

    def _module(self, module: ModuleType) -> Any:
        key = self._module_key(module)
        return mark, ("module", module.__name__, *([key] if key else ()))

    def _compiled(self, compiled: Any) -> Any:
        """Encode a function of numba, whose pickle holds a random id and what has been compiled."""
        function, options = (getattr(compiled, each, None) for each in ("py_func", "targetoptions"))
        if not isinstance(function, FunctionType) or not isinstance(options, dict):
            return NotImplemented
        return mark, ("compiled", self._function_key(function), repr(sorted(options.items())))

    def _function(self, function: Any) -> Any:
        if function is mark:
            return "mark"
        original = original_of(function)
        if original is not function:
            return self.reduce(original)
        return mark, ("function", self._function_key(function))

    def _method(self, method: Any) -> Any:
        stream = global_stream(method.__self__)
        if stream is not None:
            return mark, ("stream", stream, method.__name__)
        return mark, ("method", self._function_key(method.__func__), method.__self__)

    def _builtin(self, function: Any) -> Any:
        owner = function.__self__
        stream = global_stream(owner)
        if stream is not None:
            return mark, ("stream", stream, function.__name__)
        if owner is None or isinstance(owner, ModuleType):
            return mark, ("builtin", function.__module__, function.__qualname__)
        return mark, ("method", function.__name__, owner)


def _rule_of(kind: type) -> Callable[[Any], Any]:
    if type(kind).__name__ == "MetaEphemeral":
        return _constant
    if issubclass(kind, set | frozenset) or kind in weak_references.TYPES:
        return _refuse_set
    numpy = sys.modules.get("numpy")
    if numpy is not None and kind is numpy.ndarray:
        return _array
    return _as_it_is


def _as_it_is(_obj: object) -> Any:
    return NotImplemented


def _refuse_set(_obj: object) -> Any:
    raise _HoldsSetError


def _mapping(view: Any) -> Any:
    return mark, ("mapping", dict(view))


def _ephemeral(cls: Any) -> Any:
    return mark, ("ephemeral", cls.name, cls.ret)


def _constant(constant: Any) -> Any:
    """Encode an ephemeral constant of DEAP; unpickling adds irrelevant attributes."""
    return mark, ("constant", type(constant), constant.value)


def module_name(obj: Any) -> str:
    """Return the name of the object's module; without one, that of the script."""
    name = getattr(obj, "__module__", None)
    return name if isinstance(name, str) else "__main__"


def _array(array: Any) -> Any:
    dtype = array.dtype
    if dtype.names is not None:  # by fields: gaps between them are undefined
        return mark, ("fields", array.shape, [(name, array[name]) for name in dtype.names])
    if dtype.hasobject:
        return mark, ("objects", array.shape, array.ravel().tolist())
    if dtype.kind not in _RAW_KINDS:
        return NotImplemented
    flat = array.ravel()  # copies only non-contiguous data
    raw = pickle.PickleBuffer(flat.view("u1")) if flat.nbytes else b""
    return mark, ("array", dtype.str, array.shape, raw)


class _Encoder(pickle.Pickler):
    """The C pickler without memo."""

    def __init__(self, rules: _Rules, sink: Any) -> None:
        super().__init__(sink, _PROTOCOL)
        self.fast = True
        self.sink = sink
        self.reducer_override = rules.reduce  # type: ignore[method-assign]  # a hook of the pickler, set per object


class _SetFinder(pickle.Pickler):
    """Raises _HoldsSetError on the first set: older protocols name its type, which is detected."""

    def __init__(self, rules: _Rules, sink: Any) -> None:
        super().__init__(sink, 3)
        self._rules = rules
        self.fast = True

    def reducer_override(self, obj: Any) -> Any:
        if obj is set or obj is frozenset:
            raise _HoldsSetError
        reduced = self._rules.reduce(obj)
        if type(reduced) is tuple and reduced[1][0] == "array":
            return mark, ()
        return reduced


_DECIMAL: Final = 1 << 128
"""Python refuses to write very large numbers in decimal; larger ones are written in hexadecimal."""
_ATOMS: Final[dict[type, Callable[[Any], bytes]]] = {
    type(None): lambda _: b"N",
    bool: lambda value: b"T" if value else b"F",
    int: lambda value: b"i%d" % value if -_DECIMAL < value < _DECIMAL else b"i%x" % value,
    float: lambda value: b"f" + struct.pack("<d", value),
    complex: lambda value: b"c" + struct.pack("<dd", value.real, value.imag),
    str: lambda value: b"s" + value.encode("utf-8", "surrogatepass"),
    bytes: lambda value: b"b" + value,
    bytearray: lambda value: b"a" + bytes(value),
    EllipsisType: lambda _: b"E",
    NotImplementedType: lambda _: b"I",
    pickle.PickleBuffer: lambda value: b"B" + sha256(value).digest(),
}


class _Walker:
    """A tree of digests over any value; shared parts are walked once and count as equal ones."""

    def __init__(self, rules: _Rules, *, numbered: bool) -> None:
        self._rules = rules
        self._numbered = numbered
        self._numbers: dict[int, int] = {}
        self._open: set[int] = set()
        self._known: dict[int, bytes] = {}
        self._kept: list[object] = []  # its id is recorded above, and must not be reused
        self._nodes = 0
        self._is_strict = False  # inside of an object of a library, which counts as a whole

    def digest(self, obj: Any) -> bytes:
        atom = _ATOMS.get(type(obj))
        if atom is not None:
            return _hash(atom(obj))
        key = id(obj)
        known = self._known.get(key)
        if known is not None:
            return known
        if self._numbered and type(obj) not in (tuple, frozenset):
            if key in self._numbers:
                return _hash(b"^%d" % self._numbers[key])
            self._numbers[key] = len(self._numbers)
        elif key in self._open:
            raise _CyclicError
        self._nodes += 1
        if self._nodes > _NODES_MAX:
            raise _NoFormError
        self._kept.append(obj)
        self._open.add(key)
        try:
            found = self._compound(obj)
        finally:
            self._open.discard(key)
        if not self._numbered:
            self._known[key] = found
        return found

    def _compound(self, obj: Any) -> bytes:
        kind = type(obj)
        if kind is tuple or kind is list:
            return self._join(b"(" if kind is tuple else b"[", obj)
        if kind is dict:
            return self._join(b"{", (part for item in obj.items() for part in item))
        if isinstance(obj, set | frozenset):
            return self._set(obj)
        if kind in weak_references.TYPES:
            return self._weak(obj)
        return self._object(obj)

    def _join(self, tag: bytes, parts: Iterable[Any]) -> bytes:
        return _hash(tag + b"".join([self.digest(part) for part in parts]))

    def _set(self, obj: Any) -> bytes:
        try:
            walker = _Walker(self._rules, numbered=False) if self._numbered else self
            parts = sorted([walker.digest(part) for part in obj])
        except _CyclicError:
            if self._numbered:
                raise _NoFormError from None
            raise
        head = self.digest(type(obj)) + self.digest(getattr(obj, "__dict__", None))
        return _hash(b"<" + head + b"".join(parts))

    def _weak(self, obj: Any) -> bytes:
        make, (content,) = weak_references.reduce(obj)
        self._kept.append(content)
        tag = f"w{make.__name__}".encode()
        try:
            return self._join(tag, [content])
        except _CyclicError:
            raise
        except Exception:  # noqa: BLE001 - user code's reductions; then it counts as any
            return _hash(tag)

    def _object(self, obj: Any) -> bytes:
        reduced = self._rules.reduce(obj)
        if reduced is not NotImplemented:
            return self._reduced(obj, reduced)
        if not self._rules.is_lenient or self._is_strict:
            return self._reduced(obj, self._own(obj))
        opened = self._open.copy()
        self._is_strict = not self._rules.is_of_user(type(obj))
        try:
            return self._reduced(obj, self._own(obj))
        except (_CyclicError, RecursionError):
            raise
        except Exception:  # noqa: BLE001 - user code, or an object that cannot be pickled
            self._open = opened
            return self._reduced(obj, self._rules.opaque(obj))
        finally:
            self._is_strict = False

    def _own(self, obj: Any) -> Any:
        """Return the object's own reduction."""
        special = copyreg.dispatch_table.get(type(obj))
        return obj.__reduce_ex__(_PROTOCOL) if special is None else special(obj)

    def _reduced(self, obj: Any, reduced: Any) -> bytes:
        if isinstance(reduced, str):
            return _hash(f"g{module_name(obj)}:{reduced}".encode())
        self._kept.append(reduced)
        function, args, *more = reduced
        state, items, pairs = (*more, None, None, None)[:3]
        parts = (function, args, state, list(items or ()), list(pairs or ()))
        self._kept.append(parts)
        return self._join(b"o", parts)
