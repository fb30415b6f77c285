"""State of objects that cannot be pickled and that other processes have as their import made them.

A function that reads it would get another answer in a worker. An object in its first state (an
event that is not set, an empty queue) has none, so that its digest is that of its type.
"""

from __future__ import annotations

import contextvars
import inspect
import queue
import random
import sys
import threading
from types import GeneratorType
from typing import Any, Final

from resilient_scoop.values.open_files import is_file, state_of_file

_QUEUES: Final = (queue.Queue, queue.SimpleQueue)
_SHARED: Final = "multiprocessing."
_HASHES: Final = (
    "_hashlib",
    "_blake2",
    "_sha1",
    "_sha2",
    "_sha256",
    "_sha3",
    "_sha512",
    "_md5",
    "hmac",
)
_POSITIONS: Final = {"_csv": "line_num", "csv": "line_num", "pandas.io.parsers.readers": "_currow"}
"""Modules of readers, and the attribute of a reader that tells its position."""
_INITIALIZED: Final = (random.Random, contextvars.ContextVar, threading.local)
_CONSTANTS: Final = frozenset({int, float, str, bool, type(None)})
_HASH_BYTES: Final = 32
"""How much is read of a hash that has no size of its own (SHAKE)."""


def is_shared(kind: type) -> bool:
    """Return whether objects of a type are shared by processes of `multiprocessing`."""
    module = kind.__module__
    return module.startswith(_SHARED) and module.partition(".")[2] in (
        "queues", "synchronize", "sharedctypes"
    )  # fmt: skip


def is_initialized(value: object) -> bool:
    """Return whether an object that counts by its type was made from values that results depend on.

    It is a random generator, which has a seed, a context variable, or data of a thread.
    """
    kind = type(value)
    return isinstance(value, _INITIALIZED) or kind.__module__.startswith("numpy.random")


def state_of_stream(value: Any) -> bytes:
    """Return the state of a random generator; empty for other objects, and if it has none."""
    if isinstance(value, random.SystemRandom):
        return b""
    if isinstance(value, random.Random):
        return bytes_of_stream(random.Random.getstate(value))
    bits = getattr(value, "bit_generator", None) or getattr(value, "_bit_generator", value)
    state = getattr(bits, "state", None)
    return bytes_of_stream(state) if isinstance(state, dict) else b""


def bytes_of_stream(state: Any) -> bytes:
    """Return the state of a random generator as bytes that are the same in every process."""
    if hasattr(state, "tobytes"):
        return bytes(state.tobytes())
    if isinstance(state, dict):
        parts = (name.encode() + bytes_of_stream(each) for name, each in sorted(state.items()))
        return b"".join(parts)
    return repr(state).encode()


def may_have_state(value: object) -> bool:
    """Return whether `state_of` looks into an object."""
    kind = type(value)
    return (
        isinstance(value, (threading.Event, GeneratorType, *_QUEUES))
        or kind.__module__ in _POSITIONS
        or is_shared(kind)
        or is_file(value)
    )


def state_of(value: Any) -> bytes:
    """Return the state of an object; empty if it is as it was made, or not of the kinds known here.

    The kinds: events, queues, values shared by `multiprocessing`, views of memory, hash objects,
    futures of `concurrent.futures`, SQLite's databases in memory, generators, readers of CSV, and
    open files.
    """
    if isinstance(value, threading.Event):
        return b"set" if value.is_set() else b""
    if isinstance(value, _QUEUES):
        return _count(value.qsize())
    if is_file(value):
        return state_of_file(value)
    kind = type(value)
    if is_shared(kind):
        return _shared(value, kind.__module__)
    for state_of_kind in (
        _of_buffer,
        _of_hash,
        _of_future,
        _of_database,
        _of_generator,
        _of_reader,
    ):
        found = state_of_kind(value)
        if found:
            return found
    return b""


def _of_buffer(value: Any) -> bytes:
    return bytes(value) if type(value) is memoryview else b""


def _of_hash(value: Any) -> bytes:
    """Return the digest of an object of `hashlib`, or of `hmac`, which are many types."""
    kind = type(value)
    if kind.__module__ not in _HASHES or not hasattr(kind, "digest_size"):
        return b""
    return bytes(value.digest(*([_HASH_BYTES] if value.digest_size == 0 else [])))


def _of_future(value: Any) -> bytes:
    """Return the state of a future once it has begun."""
    module = sys.modules.get("concurrent.futures")
    kind = () if module is None else module.Future
    state: str = value._state if isinstance(value, kind) else "PENDING"  # noqa: SLF001 - its methods tell less
    return b"" if state == "PENDING" else state.encode()


def _of_database(value: Any) -> bytes:
    """Return the number of changes to a database that lives in memory; others are in files."""
    module = sys.modules.get("sqlite3")
    if module is None or not isinstance(value, module.Connection):
        return b""
    try:
        if any(file for _, _, file in value.execute("PRAGMA database_list")):
            return b""
        version = value.execute("PRAGMA schema_version").fetchone()[0]
        return _count(version + value.total_changes)
    except module.Error:
        return b""  # it is closed, or of another thread


def _of_generator(value: Any) -> bytes:
    """Return where a generator is, once it has begun; constants in its variables count, too."""
    if type(value) is not GeneratorType:
        return b""
    frame = value.gi_frame
    if frame is None:
        return b"ended"
    if inspect.getgeneratorstate(value) == inspect.GEN_CREATED:
        return b""
    held = sorted((name, each) for name, each in frame.f_locals.items() if type(each) in _CONSTANTS)
    return f"at {frame.f_lasti} {held}".encode("utf-8", "surrogatepass")


def _of_reader(value: Any) -> bytes:
    """Return how many lines a CSV reader has read; pandas counts them in `_currow`."""
    name = _POSITIONS.get(type(value).__module__)
    found = None if name is None else getattr(value, name, None)
    return _count(found) if isinstance(found, int) else b""


def _count(number: int) -> bytes:
    return b"holds %d" % number if number else b""


def _shared(value: Any, module: str) -> bytes:
    try:
        if module.endswith(".queues"):
            size = getattr(value, "qsize", None)
            return _count(int(not value.empty()) if size is None else size())
        if module.endswith(".sharedctypes"):
            held = bytes(memoryview(value.get_obj()).cast("B"))
            return held if any(held) else b""
        is_set = getattr(value, "is_set", None)
        return b"set" if is_set is not None and is_set() else b""
    except (OSError, ValueError, NotImplementedError):
        return b""  # it is closed, or this system does not count
