"""A sound check that a call draws no random numbers and calls no unknown code.

Such calls need no seeding of the random streams, which costs more than many of them; and their
results depend only on function and arguments, so that they can be found by these
(`core.parent.moved`). The proof uses a closed world: the arguments are exact builtin scalars,
numbers and arrays of numbers of numpy, builtin containers of them, or records of them (instances of
dataclasses that have only fields and no code of the user); everything that the function loads from
outside is again such a constant, a list or dict of constants that no reachable code can change, a
builtin of `_BUILTINS`, an exception class, the module `math`, `time` for its `sleep`, `numpy` for
the names of `_NUMPY`, or a function for which the same holds; and the allowed instructions cannot
leave this world. So every called function is known. Attributes are limited to names of `math`, to
methods of builtin types, and to names that only records have in this world.

In doubt, the answer is no: for example, an instruction that is not listed (of a later Python).
Globals are looked up at the check; a script that rebinds them later is out of scope.
"""

from __future__ import annotations

import builtins
import dis
import functools
import inspect
import math
import sys
import time
import warnings
from collections.abc import Container, Iterator
from types import BuiltinFunctionType, CodeType, FunctionType, GeneratorType, MemberDescriptorType
from typing import Any, Final, cast

_DEPTH_MAX: Final = 8
_ITEMS_MAX: Final = 1024
_SCALARS: Final = frozenset({int, float, bool, str, bytes, type(None), complex})
_CONTAINERS: Final = frozenset({tuple, list, dict, set, frozenset})

_BUILTIN_NAMES_TEXT: Final = """
    abs all any ascii bin bool bytes chr complex dict divmod enumerate filter float format
    frozenset hash hex int isinstance issubclass len list map max min oct ord pow range repr
    reversed round set sorted str sum tuple zip
"""
_BUILTIN_NAMES: Final = _BUILTIN_NAMES_TEXT.split()
_BUILTINS: Final = {
    id(value)
    for name, value in vars(builtins).items()
    if name in _BUILTIN_NAMES or (isinstance(value, type) and issubclass(value, Exception))
}
_METHODS: Final = frozenset(
    name
    for kind in (int, float, complex, str, bytes, list, tuple, dict, set, frozenset)
    for name in dir(kind)
    if not name.startswith("_") and name not in ("format", "format_map")
)
_SLEEP: Final = time.sleep
_MATH: Final = frozenset(name for name in vars(math) if not name.startswith("_"))

_NUMPY_TEXT: Final = """
    abs absolute arange arccos arccosh arcsin arcsinh arctan arctan2 arctanh argmax argmin array asarray
    cbrt ceil clip concatenate cos cosh cumprod cumsum deg2rad diff divide e exp exp2 expm1 fabs float64
    floor full hypot inf int64 isfinite isinf isnan linspace log log10 log1p log2 max maximum mean median
    min minimum mod multiply nan ones ones_like pi power prod rad2deg rint sign sin sinh sqrt square std
    subtract sum tan tanh trunc var zeros zeros_like
"""
_NUMPY: Final = frozenset(_NUMPY_TEXT.split())
"""Names of numpy that compute from their arguments only: not `empty`, `random`, `load`, `vectorize`."""
_ARRAY: Final = frozenset({"T", "item", "ndim", "reshape", "round", "shape", "size", "tolist"})
_NUMBER_KINDS: Final = frozenset("biufc")

_PLAIN_OPS_TEXT: Final = """
    CACHE RESUME NOP EXTENDED_ARG POP_TOP PUSH_NULL COPY SWAP PRECALL CALL KW_NAMES CALL_KW
    CALL_FUNCTION_EX DICT_MERGE END_FOR POP_ITER END_SEND NOT_TAKEN TO_BOOL LOAD_CONST
    LOAD_SMALL_INT LOAD_COMMON_CONSTANT LOAD_FAST LOAD_FAST_CHECK LOAD_FAST_AND_CLEAR
    LOAD_FAST_LOAD_FAST LOAD_FAST_BORROW LOAD_FAST_BORROW_LOAD_FAST_BORROW STORE_FAST
    STORE_FAST_LOAD_FAST STORE_FAST_STORE_FAST STORE_FAST_MAYBE_NULL DELETE_FAST LOAD_DEREF
    STORE_DEREF LOAD_CLOSURE MAKE_CELL COPY_FREE_VARS LOAD_ASSERTION_ERROR BINARY_OP
    BINARY_SUBSCR BINARY_SLICE STORE_SUBSCR STORE_SLICE DELETE_SUBSCR COMPARE_OP CONTAINS_OP
    IS_OP UNARY_NEGATIVE UNARY_NOT UNARY_POSITIVE UNARY_INVERT BUILD_TUPLE BUILD_LIST BUILD_SET
    BUILD_MAP BUILD_CONST_KEY_MAP BUILD_STRING BUILD_SLICE LIST_APPEND LIST_EXTEND LIST_TO_TUPLE
    SET_ADD SET_UPDATE MAP_ADD DICT_UPDATE FORMAT_VALUE FORMAT_SIMPLE FORMAT_WITH_SPEC
    CONVERT_VALUE UNPACK_SEQUENCE UNPACK_EX GET_LEN MATCH_SEQUENCE MATCH_MAPPING MATCH_KEYS
    GET_ITER FOR_ITER RETURN_VALUE RETURN_CONST MAKE_FUNCTION SET_FUNCTION_ATTRIBUTE
    PUSH_EXC_INFO POP_EXCEPT CHECK_EXC_MATCH RERAISE RAISE_VARARGS
"""
_PLAIN_OPS: Final = frozenset(_PLAIN_OPS_TEXT.split())
_CHANGING_OPS: Final = frozenset({"STORE_SUBSCR", "DELETE_SUBSCR", "STORE_SLICE"})
_CHANGING_METHODS: Final = frozenset(
    ["append", "clear", "extend", "insert", "pop", "popitem", "remove", "reverse", "setdefault",
     "sort", "update"]
)  # fmt: skip
_NESTED_OPS: Final = frozenset({"RETURN_GENERATOR", "YIELD_VALUE"})
_INTRINSICS: Final = ("INTRINSIC_UNARY_POSITIVE", "INTRINSIC_LIST_TO_TUPLE")
_NESTED_INTRINSICS: Final = (*_INTRINSICS, "INTRINSIC_STOPITERATION_ERROR")
_OF_A_RECORD: Final = frozenset(
    ["__module__", "__qualname__", "__doc__", "__annotations__", "__dict__", "__weakref__", "__slots__",
     "__dataclass_fields__", "__dataclass_params__", "__match_args__", "__hash__", "__firstlineno__",
     "__static_attributes__", "__annotate_func__", "__annotations_cache__",
     "__slotnames__"]  # `copyreg` sets this when it reduces an instance
)  # fmt: skip
_MADE_BY_DATACLASS: Final = frozenset(
    ["__init__", "__repr__", "__eq__", "__lt__", "__le__", "__gt__", "__ge__", "__hash__", "__setattr__",
     "__delattr__", "__replace__", "__getstate__", "__setstate__"]
)  # fmt: skip
_KINDS: Final = (
    *_SCALARS, *_CONTAINERS, range, slice, zip, map, filter, enumerate, reversed, type, bytearray,
    Exception, functools.partial, FunctionType, BuiltinFunctionType, GeneratorType,
)  # fmt: skip
"""Types of values in this world, besides those of numpy."""
_JUMPS: Final = "JUMP_", "POP_JUMP_"
_MISSING: Final = object()


class _Look:
    """What a check of a function has found: code that it may run, and containers that it can reach."""

    def __init__(self) -> None:
        self.codes: list[CodeType] = []
        self.functions: list[Any] = []
        self.attributes: set[str] = set()  # attributes that only records may have
        self.has_list = self.has_dict = False

    def takes(self, value: Any) -> bool:
        """Return whether a value is a list or dict of constants; record that it must not be changed."""
        if type(value) is list:
            self.has_list = True
            return len(value) <= _ITEMS_MAX and all(map(_is_constant, value))
        if type(value) is dict:
            self.has_dict = True
            parts = (*value, *value.values())
            return len(parts) <= _ITEMS_MAX and all(map(_is_constant, parts))
        return False

    def reads_records_only(self) -> bool:
        """Return whether all attributes that no known type has are fields of records."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # numpy warns of names that it had
            return not any(
                hasattr(each, name) for name in self.attributes for each in self._others()
            )

    def _others(self) -> Iterator[object]:
        yield from (*_KINDS, math, time, *self.functions)
        numpy = sys.modules.get("numpy")
        if numpy is not None:
            yield from (
                numpy,
                numpy.ndarray,
                numpy.generic,
                numpy.dtype,
                numpy.ufunc,
                numpy.flatiter,
            )

    def leaves_as_it_is(self) -> bool:
        """Return whether no found code can change the found containers, under any name."""
        if not (self.has_list or self.has_dict):
            return True
        in_place = {"|="} | ({"+=", "*="} if self.has_list else set())
        for code in self.codes:
            for _, instruction in _instructions(code):
                if instruction.opname in _CHANGING_OPS or instruction.argrepr in in_place:
                    return False
                if (
                    instruction.opname in ("LOAD_ATTR", "LOAD_METHOD")
                    and instruction.argval in _CHANGING_METHODS
                ):
                    return False
        return True


def _is_constant(value: Any) -> bool:
    return type(value) in _SCALARS or (type(value) is tuple and all(map(_is_constant, value)))


def draws_nothing(function: Any) -> bool:
    """Return whether calls of `function` with arguments that are `args_plain` are proven pure."""
    look = _Look()
    return (
        _is_safe(function, look, frozenset(), 0)
        and look.leaves_as_it_is()
        and look.reads_records_only()
        and callable(function)
    )


def args_plain(obj: object) -> bool:
    """Return whether `obj` is an exact builtin scalar, or a small container or record of such."""
    if type(obj) in _SCALARS:
        return True
    left = _ITEMS_MAX
    stack = [obj]
    while stack:
        part: Any = stack.pop()
        kind = type(part)
        if kind in _CONTAINERS:
            left -= len(part)
            if left < 0:
                return False
            stack.extend(part)
            if kind is dict:
                stack.extend(part.values())
        elif kind not in _SCALARS and not _is_numbers(part):
            fields = getattr(kind, "__dataclass_fields__", None)
            if fields is None or not _has_fields_only(kind, fields):
                return False
            left -= len(fields)
            stack.extend([getattr(part, name, None) for name in fields])
            stack.extend(getattr(part, "__dict__", {}).values())
    return left >= 0


def _has_fields_only(cls: type, fields: Container[str]) -> bool:
    """Return whether a dataclass has only fields and generated methods, and no code of the user."""
    if type(cls) is not type or cls.__bases__ != (object,):
        return False
    for name, value in vars(cls).items():
        if name in _OF_A_RECORD and not callable(value):
            continue
        if name in fields:
            if isinstance(value, MemberDescriptorType) or args_plain(value):
                continue
            return False
        if name not in _MADE_BY_DATACLASS or not _is_made_by_dataclass(value):
            return False
    return True


def _is_made_by_dataclass(value: Any) -> bool:
    made = inspect.unwrap(value) if type(value) is FunctionType else None
    if getattr(value, "__module__", "") == "dataclasses":
        return True
    return isinstance(made, FunctionType) and made.__code__.co_filename == "<string>"


def _is_numbers(obj: Any) -> bool:
    """Return whether `obj` is an exact array, or a number, of numpy."""
    numpy = sys.modules.get("numpy")
    if numpy is None or not (type(obj) is numpy.ndarray or isinstance(obj, numpy.generic)):
        return False
    return type(obj).__module__ == "numpy" and obj.dtype.kind in _NUMBER_KINDS


def _is_safe(value: Any, look: _Look, under: frozenset[int], depth: int) -> bool:
    """Return whether a value may be in the closed world; `under` are functions being checked."""
    if id(value) in _BUILTINS or value is math or value is time or _is_numpy(value):
        return True
    if type(value) is BuiltinFunctionType:
        return value is _SLEEP or getattr(math, value.__name__, None) is value
    if type(value) is FunctionType:
        return id(value) in under or _is_pure(value, look, under | {id(value)}, depth + 1)
    if type(value) is functools.partial:
        look.functions.append(value)
        given = (*value.args, *value.keywords.values())
        return _is_safe(value.func, look, under, depth + 1) and all(map(args_plain, given))
    if type(value) is tuple:
        return all(_is_safe(part, look, under, depth) for part in value)
    return type(value) in _SCALARS or look.takes(value)


def _is_pure(function: FunctionType, look: _Look, under: frozenset[int], depth: int) -> bool:
    code = function.__code__
    look.codes.append(code)
    look.functions.append(function)
    if depth > _DEPTH_MAX or code.co_flags & (inspect.CO_GENERATOR | inspect.CO_COROUTINE):
        return False
    if code.co_flags & inspect.CO_ASYNC_GENERATOR:
        return False
    try:
        carried = [cell.cell_contents for cell in function.__closure__ or ()]
    except ValueError:  # not assigned yet
        return False
    carried += [*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()]
    if not all(_is_safe(value, look, under, depth) for value in carried):
        return False

    def is_safe_name(name: str) -> bool:
        # Typed only in some versions of the checkers; None in functions made by DEAP's
        # `gp.compile`.
        known = cast("Any", function).__builtins__ or {}
        value = function.__globals__.get(name, known.get(name, _MISSING))
        return value is not _MISSING and _is_safe(value, look, under, depth)

    if any(
        _is_numpy(function.__globals__.get(name)) for each in _codes(code) for name in each.co_names
    ):
        # Outside of `where=`, a ufunc leaves memory unchanged.
        names = {instruction.opname for _, instruction in _instructions(code)}
        consts = [const for each in _codes(code) for const in each.co_consts]
        if "CALL_FUNCTION_EX" in names or any("where" in repr(const) for const in consts):
            return False
    return all(
        _is_allowed(instruction, look, nested=nested)
        or (instruction.opname == "LOAD_GLOBAL" and is_safe_name(instruction.argval))
        for nested, instruction in _instructions(code)
    )


def _instructions(
    code: CodeType, *, nested: bool = False
) -> Iterator[tuple[bool, dis.Instruction]]:
    for instruction in dis.get_instructions(code):
        yield nested, instruction
    for const in code.co_consts:
        if isinstance(const, CodeType):
            yield from _instructions(const, nested=True)


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for const in code.co_consts:
        if isinstance(const, CodeType):
            yield from _codes(const)


def _is_allowed(instruction: dis.Instruction, look: _Look, *, nested: bool) -> bool:
    name = instruction.opname
    if name in _PLAIN_OPS or name.startswith(_JUMPS):
        return True
    if name in ("LOAD_ATTR", "LOAD_METHOD"):
        if instruction.argval == "sleep":
            return time.sleep is _SLEEP
        attribute = instruction.argval
        if attribute in _METHODS or _is_own(attribute):
            return True
        look.attributes.add(attribute)
        return not attribute.startswith("_")
    if name == "CALL_INTRINSIC_1":
        return instruction.argrepr in (_NESTED_INTRINSICS if nested else _INTRINSICS)
    return nested and name in _NESTED_OPS


def _is_numpy(value: Any) -> bool:
    return value is not None and value is sys.modules.get("numpy")


def _is_own(name: str) -> bool:
    """Return whether a name is one of math, numpy or an array, and unchanged there."""
    numpy = sys.modules.get("numpy")
    if name in _MATH and not _is_own_math(name):
        return False
    if numpy is None or name not in _NUMPY:
        return name in _MATH or (numpy is not None and name in _ARRAY)
    value = getattr(numpy, name, None)
    origin = str(getattr(value, "__module__", "") or "").partition(".")[0]
    return isinstance(value, float | numpy.ufunc) or origin in ("numpy", "builtins")


def _is_own_math(name: str) -> bool:
    return name in _MATH and type(getattr(math, name, None)) in (BuiltinFunctionType, float)
