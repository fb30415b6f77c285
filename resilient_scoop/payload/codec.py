"""Values to bytes and back: pickle if possible, else dill; big buffers separately and uncopied.

The first byte is the codec: 0x80 a plain pickle, `D` dill, `O` a pickle followed by its out-of-band
buffers. Layout of `O`: tag, 3 zero bytes, count u32, pickle's length u64, the buffers' lengths u64
each, pickle, then each buffer at a multiple of 64 bytes from the start, so that arrays can be used
in place if the start is aligned (as in a mapped file).

Invariant: `dumps` raises only PicklingFailedError, and never leaves half a payload.
"""

from __future__ import annotations

import io
import pickle
import struct
from collections.abc import Callable
from types import FunctionType
from typing import Any, Final, cast

from resilient_scoop.adapters import former_names
from resilient_scoop.errors import PicklingFailedError
from resilient_scoop.payload import by_value, class_keys, unpicklable_path
from resilient_scoop.payload.sentinels import dispatch_table
from resilient_scoop.wire import payload_tags as tags

PROTOCOL: Final = 5
_PICKLE, _DILL, _BUFFERS = tags.PICKLE[0], tags.DILL[0], tags.BUFFERS[0]
SCALARS: Final = frozenset({int, float, str, bytes, bool, type(None), complex})
Parts = list[bytes | memoryview]

_ALIGN_BYTES: Final = 64
_LONG_BYTES: Final = 1 << 20
"""Bytes of at least this length are not copied into a pickle; only a frame is written around them."""
_HEAD: Final = struct.Struct("<cxxxIQ")
TOO_DEEP: Final = (
    "it is nested too deeply: send a flat form of it (a list of nodes and indexes), or give its "
    "class a __reduce__"
)


def dumps(obj: object, what: str = "value", root: str = "") -> bytes:
    """Return the payload of `obj`.

    Raises:
        PicklingFailedError: names `what` was to be sent, and the path from `root` to what failed.
    """
    kind = type(obj)
    if kind in SCALARS or (kind is tuple and SCALARS.issuperset(map(type, cast("Any", obj)))):
        return pickle.dumps(obj, PROTOCOL)  # nothing in it needs our reductions: saves 1 us
    try:
        return plain(obj)
    except Exception as error:  # noqa: BLE001 - pickling runs user code
        return _by_value(obj, error, what, root or what)


def dumps_parts(obj: object, what: str = "value", root: str = "") -> Parts:
    """Return a payload as parts to be written one after another; buffers in it are not copied."""
    if type(obj) is bytes and len(obj) > _LONG_BYTES:
        return [b"\x80\x05\x8e" + len(obj).to_bytes(8, "little"), memoryview(obj), b"."]
    buffers: list[pickle.PickleBuffer] = []
    try:
        head = plain(obj, buffers.append)
    except Exception as error:  # noqa: BLE001 - pickling runs user code
        return [_by_value(obj, error, what, root or what)]
    return lay_out(head, [buffer.raw() for buffer in buffers]) if buffers else [head]


class _WaryPickler(pickle.Pickler):
    """Checks every function and class: slower, used only if some must be pickled by value."""

    def reducer_override(self, obj: Any) -> Any:
        """Refuse what workers cannot find by its name."""
        if isinstance(obj, FunctionType | type) and class_keys.is_guarded(obj):
            raise pickle.PicklingError(f"{obj.__qualname__} does not exist in workers")
        return NotImplemented


def plain(obj: object, callback: Callable[[pickle.PickleBuffer], Any] | None = None) -> bytes:
    """Return the plain pickle of `obj`; raises the exceptions of pickle and of the objects' own methods."""
    out = io.BytesIO()
    make = _WaryPickler if class_keys.guarded else pickle.Pickler
    pickler = make(out, PROTOCOL, buffer_callback=callback)
    pickler.dispatch_table = dispatch_table()
    pickler.dump(obj)
    return out.getvalue()


def loads(payload: bytes | memoryview) -> Any:
    """Return the object of a payload in one of these codecs.

    Buffers of a writable payload (a private mapping) are used in place; others are copied, so that
    arrays are writable unless they were read-only at the sender.
    """
    tag = payload[0]
    if tag == _PICKLE:
        return former_names.load(payload)
    if tag == _DILL:
        return by_value.loads(payload[1:])
    if tag == _BUFFERS:
        head, buffers = take_apart(memoryview(payload))
        return former_names.load(head, buffers)
    raise pickle.UnpicklingError(f"unknown codec {tag:#x}: written by another version, or damaged")


def _by_value(obj: object, error: Exception, what: str, root: str) -> bytes:
    if not isinstance(error, RecursionError):
        try:
            return tags.DILL + by_value.dumps(obj)
        except RecursionError as deep:
            error = deep
        except Exception as refused:  # noqa: BLE001 - pickling runs user code
            error = refused
    if isinstance(error, RecursionError):
        raise PicklingFailedError(what, root, unpicklable_path.kind_of(obj), TOO_DEEP) from None
    culprit = culprit_in(obj, root)
    hint = culprit.hint or f"pickle says: {error}"
    raise PicklingFailedError(what, culprit.path, culprit.kind, hint) from error


def culprit_in(obj: object, root: str) -> unpicklable_path.Culprit:
    """Return the innermost part of an object, called `root`, that cannot be pickled."""
    return unpicklable_path.find(obj, root, _fails)


def _fails(obj: object) -> bool:
    for codec in (plain, by_value.dumps):
        try:
            codec(obj)
        except Exception:  # noqa: BLE001, S112 - pickling runs user code
            continue
        return False
    return True


def lay_out(head: bytes, buffers: list[memoryview]) -> Parts:
    """Return the parts of a payload of codec `O`."""
    lengths = [buffer.nbytes for buffer in buffers]
    front = _HEAD.pack(tags.BUFFERS, len(buffers), len(head))
    front += struct.pack(f"<{len(buffers)}Q", *lengths) + head
    parts: Parts = [front + _padding(len(front))]
    for buffer in buffers:
        parts.append(buffer)
        if padding := _padding(buffer.nbytes):
            parts.append(padding)
    return parts


def _padding(length: int) -> bytes:
    return bytes(-length % _ALIGN_BYTES)


def take_apart(view: memoryview) -> tuple[memoryview, list[memoryview | bytearray]]:
    """Return the pickle and the buffers of a payload of codec `O`."""
    _, count, head_bytes = _HEAD.unpack_from(view)
    lengths = struct.unpack_from(f"<{count}Q", view, _HEAD.size)
    start = _HEAD.size + 8 * count
    at = start + head_bytes
    head = view[start:at]
    buffers: list[memoryview | bytearray] = []
    for length in lengths:
        at += -at % _ALIGN_BYTES
        if at + length > len(view):
            raise pickle.UnpicklingError(f"payload of {len(view)} bytes ends before its buffers")
        buffer = view[at : at + length]
        buffers.append(bytearray(buffer) if view.readonly else buffer)
        at += length
    return head, buffers
