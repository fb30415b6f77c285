"""Text that the script writes past `sys.stdout`: what it printed before is displayed first.

Prints travel through the journal; child processes and `os.write(1, ...)` write to the descriptor, at
once. Before they can, the script waits until the launcher has displayed what Python would have
written by then: on a terminal each line, else what was flushed. An audit hook sees starts of
processes, and a signal that may end this one. C code that writes to the descriptor is not seen.
"""

from __future__ import annotations

import mmap
import os
import sys
import time
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from pathlib import Path
    from types import FrameType

    from resilient_scoop.processes.origin.stdout import ScriptOutput

WAIT_S: Final = 2.0
"""How long the script waits at most: the reader of the output may be slow, or the disk full."""
_LOOK_S: Final = 0.0005
_STARTS: Final = frozenset(
    {"subprocess.Popen", "os.system", "os.posix_spawn", "os.fork", "os.forkpty", "os.exec"}
)
_SIGNALS: Final = frozenset({"os.kill", "os.killpg", "signal.pthread_kill"})
_STREAMS: Final = (1, 2)


def _is_ours(caller: FrameType) -> bool:
    """Return whether our own code writes: a message, perhaps in a turn of the connection."""
    return str(caller.f_globals.get("__name__", "")).startswith("resilient_scoop.")


class InOrder:
    """Waits before direct text; `path` is the file of the launcher's `ShownOutput`."""

    def __init__(self, output: ScriptOutput, path: Path) -> None:
        self._output = output
        self._given_up = 0
        with path.open("rb") as file:
            memory = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
        self._shown = memoryview(memory).cast("Q")

    def wait(self, *, unflushed: bool = False) -> None:
        """Wait until what was printed is displayed; `unflushed`: with what Python would still keep."""
        output = self._output
        if not output.is_recorded:
            return  # a forked child, or the end after Ctrl-C
        wanted = output.position() if unflushed else output.due
        if self._shown[0] >= wanted or wanted <= self._given_up:
            return
        until = time.monotonic() + WAIT_S
        output.send(WAIT_S)
        while self._shown[0] < wanted:
            if time.monotonic() > until:
                self._given_up = wanted
                return
            time.sleep(_LOOK_S)

    def install(self) -> None:
        """Hear starts of processes and signals, and replace `os.write`."""
        sys.addaudithook(self._hear)
        write = os.write

        def in_order(fd: int, data: Any, /) -> int:
            if fd in _STREAMS and not _is_ours(sys._getframe(1)):  # noqa: SLF001 - documented, for CPython
                self.wait()
            return write(fd, data)

        in_order.__name__ = in_order.__qualname__ = write.__name__
        in_order.__module__, in_order.__doc__ = "os", write.__doc__  # pickled by this name
        os.write = in_order

    def _hear(self, event: str, args: tuple[Any, ...]) -> None:
        if event in _STARTS:
            self.wait()
        elif event in _SIGNALS:
            target = args[0]
            if event != "os.kill" or target <= 0 or target == os.getpid():
                self.wait(unflushed=True)
