"""Check, in 1 to 2 microseconds, whether anything that a callable refers to may have changed.

Immutable values are compared by identity; lists and dicts of constants, element by element, also by
identity; other values by their digest. Everything that is compared by identity is kept alive here,
so that no other object can get its identity.
"""

from __future__ import annotations

from operator import is_
from types import FunctionType, ModuleType
from typing import Any, Final, NamedTuple

from resilient_scoop.values.containers import content_of
from resilient_scoop.values.hidden_state import may_have_state
from resilient_scoop.values.user_code import is_user_code
from resilient_scoop.values.values import (
    CACHED,
    SCALARS,
    Describer,
    content,
    is_immutable,
    is_opaque,
    own_home,
)

_BASIC_BYTES: Final = object.__basicsize__ + 16
"""Objects with only attributes and weak references are not larger than this."""


class _Carried(NamedTuple):
    """What a function holds besides its code and defaults; most hold nothing."""

    function: Any
    keyword_defaults: dict[str, Any] | None
    cells: tuple[Any, ...]
    attributes: tuple[Any, ...]

    def is_the_same(self) -> bool:
        """Return whether keyword defaults, closure cells and attributes are the same objects."""
        function = self.function
        cells = tuple(content(cell) for cell in function.__closure__ or ())
        return (
            _same_dict(function.__kwdefaults__ or {}, self.keyword_defaults or {})
            and _same(cells, self.cells)
            and _same(_items(function.__dict__), self.attributes)
        )


class Guard:
    """What to compare before a definition is reused."""

    __slots__ = (
        "_carried",
        "_classes",
        "_contents",
        "_flat",
        "_functions",
        "_kept",
        "_more",
        "_names",
        "_sizes",
        "_values",
    )

    def __init__(self) -> None:
        self._names: list[tuple[dict[str, Any], str, Any]] = []
        self._sizes: list[tuple[dict[str, Any], int]] = []
        self._functions: list[tuple[Any, Any, Any, bool]] = []  # code, defaults, nothing else
        self._more = False  # whether any of the following is used
        self._carried: list[_Carried] = []
        self._classes: list[tuple[type, list[Any]]] = []
        self._flat: list[tuple[Any, list[Any]]] = []
        self._contents: list[tuple[Any, list[Any]]] = []
        self._values: list[tuple[Any, bytes]] = []
        self._kept: list[Any] = []

    def keep(self, obj: Any) -> None:
        """Keep an object alive while the guard is used."""
        self._kept.append(obj)

    def never(self) -> None:
        """Invalidate the guard: something to watch cannot be compared."""
        self._values.append((None, b""))
        self._more = True

    def name(self, scope: dict[str, Any], name: str, value: Any) -> None:
        """Watch the value of a name in a module's namespace."""
        self._names.append((scope, name, value))

    def names(self, scope: dict[str, Any]) -> None:
        """Watch whether a module gets more names: one may hide a builtin, or have been missing."""
        if all(known is not scope for known, _ in self._sizes):
            self._sizes.append((scope, len(scope)))

    def content(self, container: Any) -> None:
        """Watch the content of a library's container, by identity."""
        self._contents.append((container, content_of(container)))
        self._more = True

    def function(self, function: Any) -> None:
        """Watch a function's code and what it holds."""
        cells = tuple(content(cell) for cell in function.__closure__ or ())
        keywords, attributes = function.__kwdefaults__, _items(vars(function))
        is_bare = not (keywords or cells or attributes)
        self._functions.append((function, function.__code__, function.__defaults__, is_bare))
        if not is_bare:
            self._carried.append(_Carried(function, keywords and dict(keywords), cells, attributes))
            self._more = True

    def cls(self, cls: type) -> None:
        """Watch the attributes of a class itself."""
        self._classes.append((cls, list(vars(cls).values())))
        self._more = True

    def value(self, value: Any, digest: bytes | None = None) -> None:
        """Watch a value; its digest may be known already."""
        if is_immutable(value) or isinstance(value, ModuleType):
            return
        if is_opaque(value) and not may_have_state(value):
            return
        if isinstance(value, FunctionType | type | CACHED) and own_home(value) is not None:
            return
        kind = type(value)
        if kind is list and SCALARS.issuperset(map(type, value)):
            self._flat.append((value, value.copy()))
            self._more = True
        elif kind is dict and SCALARS.issuperset(map(type, (*value, *value.values()))):
            self._flat.append((value, [*value, *value.values()]))
            self._more = True
        elif _is_plain_instance(value):
            self.value(vars(value))
        else:
            if isinstance(value, FunctionType) and is_user_code(value):
                self.function(value)
            self._values.append((value, self._now(value) if digest is None else digest))
            self._more = True

    def holds(self) -> bool:
        """Return whether nothing has changed."""
        for scope, name, value in self._names:
            if scope.get(name) is not value:
                return False
        for scope, size in self._sizes:
            if len(scope) != size:
                return False
        for function, code, defaults, is_bare in self._functions:
            if function.__code__ is not code or function.__defaults__ is not defaults:
                return False
            if is_bare and (function.__kwdefaults__ or function.__dict__):
                return False
        return not self._more or self._more_holds()

    def _more_holds(self) -> bool:
        return (
            all(_same(list(vars(cls).values()), held) for cls, held in self._classes)
            and all(each.is_the_same() for each in self._carried)
            and self._values_hold()
        )

    def _values_hold(self) -> bool:
        for container, copy in self._flat:
            now = container if type(container) is list else [*container, *container.values()]
            if not _same(now, copy):
                return False
        for container, copy in self._contents:
            if not _same(content_of(container), copy):
                return False
        return all(self._now(value) == digest for value, digest in self._values)

    @staticmethod
    def _now(value: Any) -> bytes:
        return Describer(_ignore).attribute(value)


def _is_plain_instance(value: Any) -> bool:
    """Return whether an object holds only constants, in its attributes."""
    kind: Any = type(value)
    plain = kind.__reduce_ex__ is object.__reduce_ex__ and kind.__reduce__ is object.__reduce__
    if (
        not plain
        or kind.__getstate__ is not object.__getstate__
        or kind.__basicsize__ > _BASIC_BYTES
    ):
        return False
    return hasattr(value, "__dict__") and SCALARS.issuperset(map(type, vars(value).values()))


def _ignore(_home: str, _value: Any) -> None:
    pass


def _items(mapping: Any) -> tuple[Any, ...]:
    return tuple(part for item in mapping.items() for part in item) if mapping else ()


def _same(now: Any, then: Any) -> bool:
    return len(now) == len(then) and all(map(is_, now, then))


def _same_dict(now: dict[str, Any], then: dict[str, Any]) -> bool:
    return _same(list(now), list(then)) and _same(list(now.values()), list(then.values()))
