"""Commands as child processes: the common part of the doors `local` and `ssh-system`."""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from resilient_scoop.hosts.door import ConnectionLostError, lines_of

_CHUNK: Final = 32 * 1024
_END_S: Final = 5.0
_LOOK_S: Final = 0.25
_left: Final[list[subprocess.Popen[bytes]]] = []
"""Processes that outlive their pipe; they are reaped when the next one is started."""


class ChildPipe:
    """A command in a child process, in a session of its own: signals of our terminal don't reach it."""

    def __init__(self, words: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
        """Start it; raises OSError if the program cannot be started."""
        _left[:] = [process for process in _left if process.poll() is None]
        self._process = subprocess.Popen(  # noqa: S603 - the user's own configuration
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            start_new_session=True, env=None if environment is None else dict(environment),
        )  # fmt: skip
        self._writing = threading.Lock()
        self._is_closed = False

    @property
    def is_running(self) -> bool:
        """Whether the process lives."""
        return self._process.poll() is None

    def write(self, data: bytes) -> None:
        """Write to standard input; our texts are shorter than the capacity of a pipe."""
        with self._writing:
            stdin = self._process.stdin
            if stdin is None or stdin.closed:
                raise ConnectionLostError("its input is closed")
            stdin.write(data)
            stdin.flush()

    def end_input(self) -> None:
        """Close standard input."""
        with self._writing, contextlib.suppress(OSError):
            if self._process.stdin is not None:
                self._process.stdin.close()

    def lines(self) -> Iterator[str]:
        """Yield lines of standard output and standard error, until both have ended."""
        stdout = self._process.stdout
        if stdout is None:
            return
        with stdout:
            yield from lines_of(lambda: self._read(stdout.fileno()))

    def _read(self, fd: int) -> bytes:
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        while not poll.poll(_LOOK_S * 1000):
            if self._is_closed:
                return b""
        return os.read(fd, _CHUNK)

    def status(self) -> int | None:
        """Wait for the exit status; minus a signal's number if one killed it."""
        while not self._is_closed:
            with contextlib.suppress(subprocess.TimeoutExpired):
                return self._process.wait(_LOOK_S)
        try:
            self._process.wait(_LOOK_S)
        except subprocess.TimeoutExpired:
            _left.append(self._process)
        raise ConnectionLostError("the connection was closed here")

    def close(self) -> None:
        """Close its input, and read no more; the command may continue."""
        self._is_closed = True
        self.end_input()

    def kill(self) -> None:
        """Kill the process and all others in its session."""
        self._is_closed = True
        if self._process.returncode is not None:
            return  # its id may belong to another process by now
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, 9)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_END_S)
