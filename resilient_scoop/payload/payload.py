"""Payloads: arguments, values, functions and exceptions, as bytes after a codec byte.

`wire.payload_tags` lists what the first byte can be.

Loaded arrays are writable (unless they were read-only at the sender): if the `get` of a store
returns a writable view (a private mapping, `mmap.ACCESS_COPY`), they are used in place and copied
on write; otherwise they are copied once.

Invariant: no value, however broken, ends a sender or a receiver; it becomes an error that names it.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterable
from typing import Any, Final, NamedTuple, Protocol

from resilient_scoop.adapters import former_names
from resilient_scoop.errors import PicklingFailedError, UnpicklingFailedError
from resilient_scoop.payload import class_keys, codec, missing
from resilient_scoop.payload.class_keys import SendingFuture, is_importable, locate
from resilient_scoop.payload.codec import Parts, dumps
from resilient_scoop.payload.exceptions import (
    RemoteTracebackError,
    dumps_broker_error,
    dumps_exception,
    loads_exception,
)
from resilient_scoop.wire import payload_tags as tags

__all__ = [
    "LARGE_BYTES",
    "Encoded",
    "PayloadStore",
    "RemoteTracebackError",
    "SendingFuture",
    "dumps",
    "dumps_broker_error",
    "dumps_exception",
    "dumps_large",
    "dumps_result",
    "is_importable",
    "is_missing_in_workers",
    "keep_by_value",
    "loads",
    "loads_exception",
    "locate",
]

LARGE_BYTES: Final = 1 << 20
_FILE, _PLAIN = tags.FILE[0], tags.PICKLE[0]
_EXCEPTIONS: Final = (tags.EXCEPTION[0], tags.BROKER_ERROR[0])
_NAMES_MAX: Final = 5
_SMALL: Final = codec.SCALARS - {str, bytes, int}


class PayloadStore(Protocol):
    """Stores large payloads; `get` returns the joined parts that were given to `put`."""

    def put(self, buffers: Parts, sync: bool) -> bytes:  # noqa: FBT001 - the adapter's signature
        """Store the parts, one after another, and return their name."""

    def get(self, ref: bytes) -> memoryview:
        """Return the bytes with that name."""


def keep_by_value(names: Iterable[str]) -> None:
    """Pickle functions and classes of `__main__` with these names by value."""
    class_keys.guarded.update(names)


def keep_all_by_value() -> None:
    """Pickle all functions and classes of `__main__` by value: workers import an empty one."""
    class_keys.guarded = class_keys.AllNames()


def is_missing_in_workers(name: str | None) -> bool:
    """Return whether workers lack a name of `__main__`."""
    return name in class_keys.guarded


class Encoded(NamedTuple):
    """The payload of an item's outcome; `failed`: it is an exception."""

    payload: bytes
    failed: bool


def dumps_large(
    obj: object,
    store: PayloadStore | None,
    *,
    threshold_bytes: int = LARGE_BYTES,
    sync: bool = False,
    what: str = "value",
    root: str = "",
) -> bytes:
    """Return the payload of `obj`; one above the threshold goes to the store uncopied.

    Raises:
        PicklingFailedError: see `dumps`.
    """
    if type(obj) in _SMALL:
        return pickle.dumps(obj, codec.PROTOCOL)
    parts = codec.dumps_parts(obj, what, root)
    if store is not None and sum(map(len, parts)) > threshold_bytes:
        return tags.FILE + store.put(parts, sync)
    first = parts[0]
    return first if len(parts) == 1 and isinstance(first, bytes) else b"".join(parts)


def dumps_result(
    value: object, store: PayloadStore | None, *, function: str, where: str, sync: bool = False
) -> Encoded:
    """Return the payload of a result of `function`, or of a PicklingFailedError."""
    what = f"value returned by {function}"
    try:
        payload = dumps_large(value, store, sync=sync, what=what, root="value")
    except PicklingFailedError as error:
        return Encoded(dumps_exception(error, where), failed=True)
    return Encoded(payload, failed=False)


def loads(
    payload: bytes | memoryview,
    store: PayloadStore | None = None,
    what: str = "value",
    *,
    is_call: bool = False,
) -> Any:
    """Return the object; for an exception, the exception itself (it is not raised).

    `is_call`: it is a call's callable or argument (see `payload.classes`).

    Raises:
        UnpicklingFailedError: naming `what` ("argument of module:function"), the types that it
            needs, and why they are not available here.
    """
    try:
        if payload[0] == _PLAIN:
            try:
                return pickle.loads(payload)
            except ModuleNotFoundError:  # its name may have changed
                return former_names.load(payload)
        if payload[0] in _EXCEPTIONS:
            return loads_exception(payload)
        if payload[0] == _FILE:
            payload = _fetched(payload, store)
        class_keys.ProcessClasses.is_call = is_call
        return codec.loads(payload)
    except (Exception, SystemExit) as error:  # unpickling runs user code
        reason = f"{type(error).__name__}: {error}"
        at_fault = missing.is_of_the_value(error)
        raise UnpicklingFailedError(what, _names(payload), reason, at_fault) from error
    finally:
        class_keys.ProcessClasses.is_call = False


def loads_outcome(
    payload: bytes | memoryview, store: PayloadStore | None, what: str, *, failed: bool
) -> tuple[Any, BaseException | None]:
    """Return the value and the error of a call; its error if its outcome cannot be loaded here."""
    try:
        found = loads(payload, store, what)
    except UnpicklingFailedError as error:
        return None, error
    return (None, found) if failed else (found, None)


def _fetched(payload: bytes | memoryview, store: PayloadStore | None) -> memoryview:
    if store is None:
        raise pickle.UnpicklingError("it is in a file, and this process has no store")
    return store.get(bytes(payload[1:]))


def _names(payload: bytes | memoryview) -> str:
    """Return the first few types that a pickle names, as far as it can be read."""
    import pickletools

    found: list[str] = []
    strings: list[str] = []
    start = 0 if payload and payload[0] == _PLAIN else 1
    try:
        for opcode, arg, _at in pickletools.genops(bytes(payload[start:])):
            if opcode.name in ("SHORT_BINUNICODE", "BINUNICODE"):
                strings.append(str(arg))
            elif opcode.name == "STACK_GLOBAL" and len(strings) > 1:
                found.append(":".join(strings[-2:]))
            elif opcode.name == "GLOBAL":
                found.append(str(arg).replace(" ", ":"))
    except (ValueError, IndexError):
        pass  # cut off or another codec: what was read so far
    own = [name for name in dict.fromkeys(found) if not name.startswith("resilient_scoop.")]
    return ", ".join(own[:_NAMES_MAX])
