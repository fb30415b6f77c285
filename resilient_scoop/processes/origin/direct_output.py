"""Text that bypasses the script's `sys.stdout`: text printed before is displayed first.

Prints travel through the journal; child processes and `os.write(1, ...)` write to the descriptor,
at once. Before they can, the script waits until the launcher has displayed the text that Python
would have written before: on a terminal each line, else what was flushed. The functions of `os`
that start processes, that send a signal, which may end this one, and that write are replaced by
ones that wait first. (An audit hook is called for much else, so it slows every call down.) C code
that writes to the descriptor is not seen.
"""

from __future__ import annotations

import _posixsubprocess
import mmap
import os
import signal
import sys
import time
from typing import TYPE_CHECKING, Any, Final

from resilient_scoop.adapters.stand_ins import original_of, stands_in
from resilient_scoop.processes import user_signals

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from types import FrameType

    from resilient_scoop.processes.origin.stdout import ScriptOutput

WAIT_S: Final = 2.0
"""How long the script waits at most: the reader of the output may be slow, or the disk full."""
_LOOK_S: Final = 0.0005
_STARTERS: Final = ("system", "posix_spawn", "posix_spawnp", "fork", "forkpty", "execv", "execve")
_SENDERS: Final = ((os, "killpg"), (signal, "pthread_kill"), (signal, "raise_signal"))
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
        """Wait until printed text is displayed; `unflushed`: also text that Python would still buffer."""
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
        """Replace what starts processes, sends signals or writes."""
        for name in _STARTERS:
            _replace(os, name, lambda _args: self.wait())
        _replace(_posixsubprocess, "fork_exec", lambda _args: self.wait())
        _replace(os, "kill", self._before_kill)
        for module, name in _SENDERS:
            _replace(module, name, lambda _args: self.wait(unflushed=True))
        _replace(os, "write", self._before_write)
        if "subprocess" in sys.modules:  # it has taken the function over
            sys.modules["subprocess"]._fork_exec = _posixsubprocess.fork_exec  # type: ignore[attr-defined]  # noqa: SLF001 - nothing public starts all

    def _before_kill(self, args: tuple[Any, ...]) -> None:
        if args and isinstance(args[0], int) and (args[0] <= 0 or args[0] == os.getpid()):
            self.wait(unflushed=True)

    def _before_write(self, args: tuple[Any, ...]) -> None:
        if args and args[0] in _STREAMS and not _is_ours(sys._getframe(2)):  # noqa: SLF001 - documented, for CPython
            self.wait()


def _replace(module: Any, name: str, before: Callable[[tuple[Any, ...]], None]) -> None:
    """Replace a function of a module by one that calls `before` with the arguments, and then it.

    A signal that arrives meanwhile is handled at its end, as the user's code is not running.
    """
    function = getattr(module, name, None)
    if function is None:
        return

    def in_order(*args: Any, **kwargs: Any) -> Any:
        before(args)
        found = function(*args, **kwargs)
        user_signals.deliver_at(sys._getframe(1))  # noqa: SLF001 - who calls is what matters
        return found

    stands_in(in_order, original_of(function))
    in_order.__module__ = module.__name__  # pickled by this name
    setattr(module, name, in_order)
