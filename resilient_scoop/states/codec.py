"""The state of a checkpoint as bytes, and back.

Layout: `RSCK`, format u8, 3 zero bytes, length of the payload u64, length of the table u64, zeros
up to 64 bytes; the payload (codec of `payload.codec`, plain pickle or dill); the table (msgpack),
which says what wrote it and what fields the classes of the instances in it had. So arrays in a
mapped file can be used in place, and a changed class is detected before its instances are filled.

A class whose fields differ is handled by its hook, `__rscoop_migrate__(old) -> new`: `old` has the
saved attributes of an instance, the returned ones become its new attributes. Without a hook, new
fields with a default get the default; any other difference is refused, and so is a class that no
longer exists. Functions and classes are stored by name, also those under the script's guard: they
are the same here.
"""

from __future__ import annotations

import io
import pickle
import struct
from collections.abc import Callable, Mapping
from typing import IO, Any, Final, NamedTuple

import msgspec

from resilient_scoop._version import __version__
from resilient_scoop.adapters import former_names
from resilient_scoop.counts import counted
from resilient_scoop.errors import CheckpointUnusableError, PicklingFailedError
from resilient_scoop.payload import by_value, codec, unpicklable_path
from resilient_scoop.payload.codec import Parts
from resilient_scoop.payload.sentinels import dispatch_table
from resilient_scoop.states import shape
from resilient_scoop.states.migrate import Migration
from resilient_scoop.wire import payload_tags as tags

MAGIC: Final = b"RSCK"
FORMAT: Final = 1
_HEAD: Final = struct.Struct("<4sB3xQQ")
_HEAD_BYTES: Final = 64
_READ_BYTES: Final = 1 << 18

Reducer = Callable[[Any], Any]


class StateTable(msgspec.Struct, frozen=True):
    """The table after the payload."""

    version: str
    fields: dict[str, list[str]]  # module:qualname -> fields, of the user's classes


class Dumped(NamedTuple):
    """A state, as parts to be written one after another."""

    parts: Parts
    size_bytes: int


class _Seen:
    """Handles every object that needs more than pickle's own codes; collects the classes."""

    def __init__(self, own: Mapping[type, Reducer]) -> None:
        self.own = own
        self.classes: dict[type, None] = {}

    def reduce(self, obj: Any) -> Any:
        cls = type(obj)
        if cls not in self.classes:
            self.classes[cls] = None
        mine = self.own.get(cls)
        return NotImplemented if mine is None else mine(obj)


class _Pickler(pickle.Pickler):
    def __init__(self, out: io.BytesIO, seen: _Seen, callback: Callable[[Any], Any] | None) -> None:
        super().__init__(out, codec.PROTOCOL, buffer_callback=callback)
        self.dispatch_table = dispatch_table()
        self._reduce = seen.reduce

    def reducer_override(self, obj: Any) -> Any:
        """Record the classes, and apply special rules for some of them."""
        return self._reduce(obj)


def dumps(state: object, more: object, own: Mapping[type, Reducer], what: str, root: str) -> Dumped:
    """Return the bytes of (state, more); `own` reduces instances of some types.

    Raises:
        PicklingFailedError: the text names the path from `root` to what cannot be saved, and its type.
    """
    seen = _Seen(own)
    try:
        payload = _plain((state, more), seen)
    except Exception as error:  # noqa: BLE001 - pickling runs user code
        payload = [_by_value(state, more, seen, error, what, root)]
    fields = {}
    for cls in seen.classes:
        found = shape.fields_of(cls)
        if found is not None:
            fields[shape.name_of(cls)] = found
    table = msgspec.msgpack.encode(StateTable(__version__, fields))
    length = sum(map(len, payload))
    head = _HEAD.pack(MAGIC, FORMAT, length, len(table)).ljust(_HEAD_BYTES, b"\0")
    return Dumped([head, *payload, table], len(head) + length + len(table))


def _plain(state: object, seen: _Seen) -> Parts:
    buffers: list[pickle.PickleBuffer] = []
    out = io.BytesIO()
    _Pickler(out, seen, buffers.append).dump(state)
    views = [buffer.raw() for buffer in buffers]
    return codec.lay_out(out.getvalue(), views) if views else [out.getvalue()]


def _by_value(
    state: object, more: object, seen: _Seen, error: Exception, what: str, root: str
) -> bytes:
    if not isinstance(error, RecursionError):
        try:
            return tags.DILL + by_value.dumps_state((state, more), seen.reduce)
        except Exception as refused:  # noqa: BLE001 - pickling runs user code
            error = refused

    def fails(part: object) -> bool:
        try:
            _plain(part, _Seen(seen.own))
        except Exception:  # noqa: BLE001 - pickling runs user code
            try:
                by_value.dumps_state(part, _Seen(seen.own).reduce)
            except Exception:  # noqa: BLE001 - pickling runs user code
                return True
        return False

    if isinstance(error, RecursionError):
        culprit = unpicklable_path.find(state, root, fails, depth_max=1)
        raise PicklingFailedError(what, culprit.path, culprit.kind, _TOO_DEEP) from None
    culprit = unpicklable_path.find(state, root, fails)
    raise PicklingFailedError(what, culprit.path, culprit.kind, _hint(culprit, error)) from error


_TOO_DEEP: Final = "it is nested too deeply: keep a flat form of it (a list of nodes and indexes)"
_LEAVE_OUT: Final = "leave it out with __getstate__ or make it in the loop"


def _hint(culprit: unpicklable_path.Culprit, error: Exception) -> str:
    if culprit.kind in ("generator", "coroutine"):
        return "keep list(...) of it, or make it in the loop"
    if culprit.hint or isinstance(error, TypeError):
        return _LEAVE_OUT
    return f"pickle says: {error}; {_LEAVE_OUT}"


def find_unloadable(
    state: object, own: Mapping[type, Reducer], root: str
) -> unpicklable_path.Culprit:
    """Return the innermost part of a state that can be saved but not loaded back."""

    def fails(part: object) -> bool:
        try:
            content = b"".join(dumps(part, None, own, root, root).parts)
        except PicklingFailedError:
            return False
        try:
            loads(content, root)
        except CheckpointUnusableError:
            return True
        return False

    return unpicklable_path.find(state, root, fails)


def loads(content: bytes | memoryview, what: str) -> Any:
    """Return (state, more); buffers of a writable content are used in place.

    Raises:
        CheckpointUnusableError: it cannot be loaded, or would be wrong; the text names class and field.
    """
    table, payload = _take_apart(content, what)
    migration = Migration(table.fields, what)
    try:
        if payload[0] == tags.PICKLE[0]:
            state = _StateUnpickler(_reader(payload), migration).load()
        elif payload[0] == tags.DILL[0]:
            state = by_value.loads_state(_reader(payload[1:]), migration.find)
        else:
            head, buffers = codec.take_apart(memoryview(payload))
            state = _StateUnpickler(_reader(head), migration, buffers).load()
        migration.finish()
    except CheckpointUnusableError:
        raise
    except Exception as error:  # user code: unpickling runs it
        reason = f"{type(error).__name__}: {error}"
        raise CheckpointUnusableError(what, reason, _advice(error)) from error
    return state


class _View(io.RawIOBase):
    """Reads memory without copying all of it, unlike `io.BytesIO`: there may be gigabytes."""

    def __init__(self, view: memoryview) -> None:
        self._view = view
        self._at = 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, into: Any) -> int:
        """Fill the buffer, from the end of the last read."""
        part = self._view[self._at : self._at + len(into)]
        into[: len(part)] = part
        self._at += len(part)
        return len(part)


def _reader(view: memoryview) -> io.BufferedReader:
    return io.BufferedReader(_View(view), _READ_BYTES)


class _StateUnpickler(pickle.Unpickler):
    def __init__(self, data: IO[bytes], migration: Migration, buffers: Any = ()) -> None:
        super().__init__(data, buffers=buffers)
        self._find = migration.find

    def find_class(self, module: str, name: str) -> Any:
        """Check a class before its instances are made."""
        return self._find(former_names.current(module, name), name, super().find_class)


def _take_apart(content: bytes | memoryview, what: str) -> tuple[StateTable, memoryview]:
    view = memoryview(content)
    if len(view) < _HEAD_BYTES or bytes(view[:4]) != MAGIC:
        raise CheckpointUnusableError(what, "the stored data is not a checkpoint")
    _, version, length, table_length = _HEAD.unpack_from(view)
    if version > FORMAT:
        reason = f"it is of format {version}, and this version reads up to {FORMAT}"
        advice = "a newer resilient_scoop wrote it: resume with that one"
        raise CheckpointUnusableError(what, reason, advice)
    if len(view) != _HEAD_BYTES + length + table_length:
        raise CheckpointUnusableError(what, f"{counted(len(view), 'byte')} of it left")
    try:
        table = msgspec.msgpack.decode(view[_HEAD_BYTES + length :], type=StateTable)
    except msgspec.MsgspecError as error:
        raise CheckpointUnusableError(what, f"its table of classes: {error}") from error
    return table, view[_HEAD_BYTES : _HEAD_BYTES + length]


def _advice(error: Exception) -> str:
    if isinstance(error, MemoryError):
        return "it needs more memory than there is"
    return ""
