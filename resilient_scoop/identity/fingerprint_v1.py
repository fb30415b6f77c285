"""Fingerprints of journals whose definitions have no references: written before `meaning` existed.

A fingerprint covers the function's normalized source, its defaults and what its closure holds, and
the user's functions, classes and simple constants that it names, transitively. Everything reached
is numbered in order of first visit and digested once, so that cycles are no problem and the cost is
linear. Libraries count by name, and by version if one of their functions is itself fingerprinted or
held.

Without source (typed in, made by exec, edited since), the bytecode is used instead: this is weak,
because another minor version of Python changes it.
"""

from __future__ import annotations

import dis
import functools
import sys
from collections.abc import Callable, Iterator
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any, Final

from resilient_scoop.adapters.canonical import Canon
from resilient_scoop.hashing import blake2b
from resilient_scoop.values import source
from resilient_scoop.values.user_code import describe, version
from resilient_scoop.values.user_modules import file_of

FINGERPRINT_BYTES: Final = 16

_SCALARS: Final = frozenset({int, float, str, bytes, bool, type(None), complex})
_GLOBAL_LOADS: Final = frozenset({"LOAD_GLOBAL", "LOAD_NAME"})
_GENERATED: Final = "<string>"
_MISSING: Final = object()


def fingerprint(function: Callable[..., Any]) -> bytes:
    """Return the fingerprint (16 bytes) of a callable's code and of what it holds."""
    return _SurveyV1(function).digest()


def is_user_code(obj: Any) -> bool:
    """Return whether a function or class is the user's own: not of Python, a package, or ours."""
    name = getattr(obj, "__module__", None)
    if not isinstance(name, str):
        return isinstance(obj, FunctionType)
    return _is_user_module(name)


@functools.lru_cache(maxsize=4096)
def _is_user_module(name: str) -> bool:
    top = name.partition(".")[0]
    if top == "__main__":
        return True
    if top in sys.stdlib_module_names or top == __name__.partition(".")[0]:
        return False
    file = file_of(name) or ""
    return "site-packages" not in file and "dist-packages" not in file


class _SurveyV1:
    """Everything that a callable's meaning depends on, numbered in order of first visit."""

    def __init__(self, root: object) -> None:
        self._numbers: dict[int, int] = {}
        self._queue: list[Any] = []
        self._canon = Canon(self._number)
        self._number(root)

    def digest(self) -> bytes:
        """Return the fingerprint; call once."""
        hasher = blake2b(digest_size=FINGERPRINT_BYTES)
        for obj in self._queue:  # grows during the survey
            for part in self._describe(obj):
                hasher.update(len(part).to_bytes(8, "little") + part)
            hasher.update(b"\xff" * 8)
        return hasher.digest()

    def _number(self, obj: object) -> bytes:
        """Return the entry of a callable in the description of another one."""
        number = self._numbers.get(id(obj))
        if number is None:
            number = self._numbers[id(obj)] = len(self._queue)
            self._queue.append(obj)  # this also prevents reuse of its id
        return b"#%d" % number

    def _value(self, value: object) -> bytes:
        if type(value) in _SCALARS:
            return repr(value).encode("utf-8", "surrogatepass")
        if isinstance(value, FunctionType | type) and value is not _MISSING:
            return self._number(value)
        return self._canon.digest(value) or b"?"

    def _describe(self, obj: Any) -> Iterator[bytes]:
        if isinstance(obj, functools.partial):
            yield from (b"partial", self._number(obj.func), self._value(obj.args))
            for key, value in obj.keywords.items():
                yield from (key.encode(), self._value(value))
        elif isinstance(obj, MethodType):
            yield from (b"method", self._number(obj.__func__), self._value(obj.__self__))
        elif isinstance(obj, type):
            yield from self._describe_class(obj) if is_user_code(obj) else _named(obj)
        elif isinstance(obj, FunctionType):
            yield from self._describe_function(obj) if is_user_code(obj) else _named(obj)
        elif isinstance(obj, BuiltinFunctionType):
            yield from _named(obj)
        elif callable(getattr(obj, "__wrapped__", None)):
            yield from (b"wrapped", *_named(type(obj)), self._number(obj.__wrapped__))
        else:
            yield from (b"instance", self._number(type(obj)), self._value(obj))

    def _describe_function(self, function: FunctionType) -> Iterator[bytes]:
        code = function.__code__
        text = source.normalized(code)
        yield b"function" if text is not None else b"bytecode"
        yield (text if text is not None else source.bytecode(code)).encode("utf-8", "surrogatepass")
        for default in function.__defaults__ or ():
            yield self._value(default)
        for key, default in (function.__kwdefaults__ or {}).items():
            yield from (key.encode(), self._value(default))
        for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
            yield from (name.encode(), self._cell(cell))
        yield from self._describe_names(code, function.__globals__)

    def _cell(self, cell: Any) -> bytes:
        try:
            value = cell.cell_contents
        except ValueError:  # not assigned yet
            return b"-"
        return self._value(value)

    def _describe_names(self, code: CodeType, scope: dict[str, Any]) -> Iterator[bytes]:
        names = sorted({name for part in _nested(code) for name in _loads(part)})
        attributes = sorted({name for part in _nested(code) for name in part.co_names})
        for name in names:
            value = scope.get(name, _MISSING)
            yield from self._describe_named(name, value)
            if isinstance(value, ModuleType) and _is_user_module(value.__name__):
                for attribute in attributes:
                    found = getattr(value, attribute, _MISSING)
                    yield from self._describe_named(f"{name}.{attribute}", found)

    def _describe_named(self, name: str, value: Any) -> Iterator[bytes]:
        """Yield the value of a global name, if it belongs to the user and cannot change."""
        if value is _MISSING or isinstance(value, ModuleType):
            return
        if _is_constant(value):
            yield from (name.encode(), self._canon.digest(value) or b"?")
        elif isinstance(value, FunctionType | type):
            if is_user_code(value):
                yield from (name.encode(), self._number(value))
        elif isinstance(value, functools.partial | MethodType) or _wraps(value):
            yield from (name.encode(), self._number(value))
        elif callable(value) and is_user_code(type(value)):
            yield from (name.encode(), self._number(type(value)))

    def _describe_class(self, cls: type) -> Iterator[bytes]:
        yield from (b"class", cls.__qualname__.encode())
        for base in cls.__bases__:
            yield self._number(base)
        for name, value in sorted(vars(cls).items()):
            for part in _functions_of(value):
                if part.__code__.co_filename != _GENERATED:
                    yield from (name.encode(), self._number(part))
            if not name.startswith("__") and _is_constant(value):
                yield from (name.encode(), self._canon.digest(value) or b"?")
        for name, hint in vars(cls).get("__annotations__", {}).items():
            yield from (name.encode(), getattr(hint, "__qualname__", str(hint)).encode())


def _named(obj: Any) -> Iterator[bytes]:
    name = describe(obj)
    yield from (
        b"named",
        name.encode(),
        version(name.partition(":")[0].partition(".")[0]).encode(),
    )


def _functions_of(value: object) -> Iterator[FunctionType]:
    match value:
        case FunctionType():
            yield value
        case staticmethod() | classmethod():
            yield from _functions_of(value.__func__)
        case property():
            for part in (value.fget, value.fset, value.fdel):
                yield from _functions_of(part)
        case _:
            return


def _wraps(value: Any) -> bool:
    return callable(value) and callable(getattr(value, "__wrapped__", None))


def _is_constant(value: object) -> bool:
    if type(value) is tuple or type(value) is frozenset:
        return all(map(_is_constant, value))
    return type(value) in _SCALARS


def _nested(code: CodeType) -> Iterator[CodeType]:
    yield code
    for const in code.co_consts:
        if isinstance(const, CodeType):
            yield from _nested(const)


def _loads(code: CodeType) -> Iterator[str]:
    for instruction in dis.get_instructions(code):
        if instruction.opname in _GLOBAL_LOADS:
            yield instruction.argval
