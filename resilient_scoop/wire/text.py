"""Texts that are not UTF-8: names of files and folders, in messages and tracebacks.

Python reads their foreign bytes as lone surrogates (PEP 383), which no message can carry. They are for
display, so what cannot be written is escaped.
"""

from __future__ import annotations

from typing import Any

import msgspec


def writable(value: Any) -> Any:
    """Return a message as plain values whose texts can all be written as UTF-8."""
    return _escaped(msgspec.to_builtins(value, builtin_types=(bytes, bytearray, memoryview)))


def _escaped(value: Any) -> Any:
    match value:
        case str():
            return value.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
        case list() | tuple():
            return [_escaped(each) for each in value]
        case dict():
            return {_escaped(key): _escaped(each) for key, each in value.items()}
        case _:
            return value
