"""State of objects that cannot be pickled and that other processes have as their import made them.

A function that reads it would get another answer in a worker. An object in its first state (an
event that is not set, an empty queue) has none, so that its digest is that of its type.
"""

from __future__ import annotations

import queue
import threading
from typing import Any, Final

_QUEUES: Final = (queue.Queue, queue.SimpleQueue)
_SHARED: Final = "multiprocessing."


def is_shared(kind: type) -> bool:
    """Return whether objects of a type are shared by processes of `multiprocessing`."""
    module = kind.__module__
    return module.startswith(_SHARED) and module.partition(".")[2] in (
        "queues", "synchronize", "sharedctypes"
    )  # fmt: skip


def may_have_state(value: object) -> bool:
    """Return whether `state_of` looks into an object."""
    return isinstance(value, (threading.Event, *_QUEUES)) or is_shared(type(value))


def state_of(value: Any) -> bytes:
    """Return the state of an event, a queue or a shared value; empty if it is as it was made."""
    if isinstance(value, threading.Event):
        return b"set" if value.is_set() else b""
    if isinstance(value, _QUEUES):
        return _count(value.qsize())
    kind = type(value)
    return _shared(value, kind.__module__) if is_shared(kind) else b""


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
