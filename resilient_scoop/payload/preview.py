"""Pickled values as text, without running any of the code that they name.

Classes of the user are replaced by stubs that keep their arguments: nothing is imported, so a value
can be shown wherever its run can be read. Text is cut to `TEXT_MAX` characters.
"""

from __future__ import annotations

import io
import pickle
from typing import Any, Final

from resilient_scoop.payload import codec
from resilient_scoop.wire import payload_tags as tags

TEXT_MAX: Final = 300
_SAFE: Final = {
    "builtins": {
        "bytearray", "bytes", "complex", "dict", "float", "frozenset", "int", "list", "range", "set",
        "slice", "str", "tuple",
    },
    "collections": {"OrderedDict", "deque"},
    "datetime": {"date", "datetime", "time", "timedelta", "timezone"},
    "decimal": {"Decimal"},
    "fractions": {"Fraction"},
    "pathlib": {"Path", "PosixPath", "PurePosixPath"},
    "uuid": {"UUID"},
}  # fmt: skip
"""Types whose constructors only make a value."""


class _Stub:
    """Replaces an instance of a class that is not imported."""

    _parts: list[Any]
    _named: dict[str, Any]

    def __new__(cls, *args: Any, **keywords: Any) -> _Stub:  # noqa: PYI034 - of subclasses, too
        made = super().__new__(cls)
        made.__dict__["_parts"] = [*args]
        made.__dict__["_named"] = dict(keywords)
        return made

    def __init__(self, *args: Any, **keywords: Any) -> None:
        """Accept any arguments: they are already kept."""

    def __setstate__(self, state: Any) -> None:
        states = state if isinstance(state, tuple) else (state,)
        for each in states:
            if isinstance(each, dict):
                self._named.update(each)
            elif each is not None:
                self._parts.append(each)

    def append(self, item: Any) -> None:
        """Take an item of a list's subclass."""
        self._parts.append(item)

    def __setitem__(self, key: Any, value: Any) -> None:
        self._named[str(key)] = value

    def __hash__(self) -> int:
        return id(self)

    def __repr__(self) -> str:
        named = [f"{key}={value!r}" for key, value in self._named.items()]
        return f"{type(self).__name__}({', '.join([*map(repr, self._parts), *named])})"


class _Names(type):
    """Shows a stub class, or a named function, by its name."""

    def __repr__(cls) -> str:
        return cls.__name__


class _StubUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        """Return a safe type, or a stub with this name."""
        if name in _SAFE.get(module, ()):
            return super().find_class(module, name)
        return _Names(name.rpartition(".")[2], (_Stub,), {"__module__": module})


def preview(payload: bytes) -> str:
    """Return a payload's value as text; a note in angle brackets replaces what cannot be shown."""
    value = peek(payload)
    return value if isinstance(value, Unshown) else cut(repr(value))


class Unshown(str):
    """The note that replaces a value that cannot be shown."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def peek(payload: bytes) -> Any:
    """Return a payload's value with stubs in it, or an `Unshown`."""
    if not payload:
        return Unshown("<nothing>")
    if payload[0] == tags.DILL[0]:
        return Unshown("<travels by value>")
    try:
        if payload[0] == tags.PICKLE[0]:
            return _StubUnpickler(io.BytesIO(payload)).load()
        if payload[0] == tags.BUFFERS[0]:
            head, buffers = codec.take_apart(memoryview(payload))
            return _StubUnpickler(io.BytesIO(bytes(head)), buffers=buffers).load()
    except Exception as error:  # noqa: BLE001 - stubs need not fit what a pickle of user code does
        return Unshown(f"<cannot be shown: {type(error).__name__}>")
    return Unshown("<large: kept in a file>")


def cut(text: str) -> str:
    """Return a text of `TEXT_MAX` characters at most."""
    return text if len(text) <= TEXT_MAX else f"{text[: TEXT_MAX - 1]}…"
