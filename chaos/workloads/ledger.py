"""A record outside the runtime: which items were really started and ended, and how often.

Each line is appended by one `write` (O_APPEND), so that lines of many processes never mix and
nothing that was written before a `kill -9` is lost. It has a mark, the item's path, the process,
the moment (monotonic seconds), and the host. `path` is the position of the future in its script:
the number of the call and of the item.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

VARIABLE = "CHAOS_LEDGER"
SLOWNESS = "CHAOS_SLOWNESS"  # a factor for all times that workloads take
START, END, ONCE = "start", "end", "once"


def note(mark: str, path: str) -> None:
    """Append a line, if the environment names a ledger."""
    name = os.environ.get(VARIABLE)
    if name is None:
        return
    fd = os.open(name, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.write(
            fd,
            f"{mark} {path} {os.getpid()} {time.monotonic():.6f} {os.uname().nodename}\n".encode(),
        )
    finally:
        os.close(fd)


def pause(time_s: float) -> None:
    """Wait as long as a computation would take."""
    time.sleep(time_s * float(os.environ.get(SLOWNESS, "1")))


@contextmanager
def running(path: str, mark: str = START) -> Iterator[None]:
    """Record the start and the end of an item; `ONCE` marks an item that may never start twice."""
    note(mark, path)
    yield
    note(END, path)
