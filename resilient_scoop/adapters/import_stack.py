"""Report a worker that has been importing the script for very long, with the place where it is.

An import that hangs (on a lock, a network, an endless loop) raises no error, and no time limit fits
every import. So the agent reports it once, and leaves the worker alone. The worker writes the
place: a signal makes its interpreter write the stacks of its threads, even if no Python code can
run.
"""

from __future__ import annotations

import faulthandler
import os
import re
import signal
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

REPORT_S: Final = 60.0
_SIGNAL: Final = signal.SIGRTMIN + 4
_ANSWER_S: Final = 0.5
_TAIL_BYTES: Final = 8192
_PLACE: Final = r'^  File "([^<].*)", line (\d+) in '


def tell_when_asked() -> None:
    """Make this process write its stack to its log on request of the agent."""
    faulthandler.register(_SIGNAL, file=2, all_threads=True)


def place(pid: int, log: Path) -> str:
    """Ask a process for its place; return `, at "FILE", line N`, or an empty text."""
    with suppress(OSError):  # it has ended, or has no log
        size = log.stat().st_size
        os.kill(pid, _SIGNAL)
        until = time.monotonic() + _ANSWER_S
        while log.stat().st_size == size and time.monotonic() < until:
            time.sleep(0.01)
        with log.open("rb") as file:
            file.seek(max(size, log.stat().st_size - _TAIL_BYTES))
            dump = file.read().decode("utf-8", "replace").rpartition("(most recent call first):")[2]
        found = re.search(_PLACE, dump, re.MULTILINE)
        return "" if found is None else f', at "{found[1]}", line {found[2]}'
    return ""


def describe(name: str, pid: int, log: Path, run_id: str) -> str:
    """Return the message of the agent."""
    return (
        f"worker {name} (process {pid}) has been importing the script for {REPORT_S:.0f} s"
        f"{place(pid, log)}. "
        f"If the import hangs: stop the run, correct it, then `rscoop resume {run_id}`"
    )
