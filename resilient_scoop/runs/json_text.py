"""JSON that can also hold names that are not UTF-8.

Python reads a byte of a file name that is not UTF-8 as a lone surrogate (PEP 383). msgspec rightly
refuses these; JSON can escape them. Only values with a surrogate take the slow path.
"""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

_Value = TypeVar("_Value")


def encode(value: Any) -> bytes:
    """Return a struct as JSON."""
    try:
        return msgspec.json.encode(value)
    except UnicodeEncodeError:
        import json

        return json.dumps(msgspec.to_builtins(value)).encode()


def pretty(value: Any) -> bytes:
    """Return a struct, or a list of them, as JSON on several lines."""
    try:
        return msgspec.json.format(msgspec.json.encode(value))
    except UnicodeEncodeError:
        import json

        return json.dumps(msgspec.to_builtins(value), indent=2).encode()


def decode(text: bytes | str, kind: type[_Value]) -> _Value:
    """Decode a text into a struct.

    Raises:
        msgspec.MsgspecError: it is not JSON, or of another type.
    """
    try:
        return msgspec.json.decode(text, type=kind)
    except msgspec.DecodeError as error:
        if "surrogate" not in str(error):
            raise
        import json

        return msgspec.convert(json.loads(text), kind)


def printable(text: str) -> str:
    """Return a text that can be written as UTF-8; other characters are escaped."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def one_line(text: str) -> str:
    """Return a text for a line of a terminal: line ends and other control characters are escaped."""
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode()
        for each in printable(text)
    )
