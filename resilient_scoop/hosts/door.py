"""A door: the interface of a connection to a host, as a place needs it.

There are doors for paramiko, for the `ssh` program and for a local shell.
"""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import Final, Protocol

import msgspec

RUN_S: Final = 30.0
"""A short command of ours, such as a search for Python, takes at most this long."""
OUTPUT_BYTES_MAX: Final = 256 * 1024
"""What is kept of a short command's output: the last of it, since a login shell may print before it."""
LINE_BYTES_MAX: Final = 64 * 1024
"""A longer line of output is cut into lines of this length."""


class ConnectionLostError(OSError):
    """The connection ended, so it is unknown whether the command has ended; the text gives the reason."""


class Done(msgspec.Struct, frozen=True):
    """The result of a short command."""

    status: int | None  # None: a signal
    output: str

    @property
    def lines(self) -> list[str]:
        """Its output, line by line."""
        return self.output.splitlines()


class Pipe(Protocol):
    """A command that runs on the host: its standard input and its output."""

    def write(self, data: bytes) -> None:
        """Write to its standard input; raises OSError if it takes none."""

    def end_input(self) -> None:
        """Close its standard input."""

    def lines(self) -> Iterator[str]:
        """Yield the lines of standard output and standard error until both have ended.

        One thread may read, while others write.

        Raises:
            ConnectionLostError: the connection ended first. `status` may be the one to say so.
        """

    def status(self) -> int | None:
        """Wait for the end, after `lines`, and return its exit status, or None for a signal.

        Raises:
            ConnectionLostError: the connection ended first.
        """

    def close(self) -> None:
        """Close input and output; the command may continue."""

    def kill(self) -> None:
        """Close input and output, and end the command if it is a process of this machine."""


class Door(Protocol):
    """A host on which commands can be run. All methods may raise PlaceRefusedError and PlaceBusyError."""

    kind: str  # for messages: "ssh", "ssh-system", "local"

    def connect(self) -> None:
        """Log in, unless this is done."""

    def open(self, command: str) -> Pipe:
        """Start a command; the login shell of the user reads it."""

    def run(self, command: str, text: str = "", *, within_s: float = RUN_S) -> Done:
        """Run a short command with `text` on its standard input, and return its result."""

    def route(self) -> str | None:
        """Return the address of this machine as the host sees it; None if there is no direct route."""

    def tunnel(self, port: int, address: str = "127.0.0.1") -> str:
        """Let the host reach a port of this machine; return `address:port` on the host's loopback.

        Asked again it returns the same tunnel, or a new one if the connection was lost.
        """

    def shell_line(self, command: str) -> str:
        """Return a command line with which a user could run the same command."""

    def close(self) -> None:
        """End the connection."""


def lines_of(read: Callable[[], bytes]) -> Iterator[str]:
    """Yield the lines of a stream of bytes, which ends with an empty read."""
    held = b""
    while chunk := read():
        *whole, held = (held + chunk).split(b"\n")
        for line in whole:
            yield line.decode(errors="replace").rstrip("\r")
        if len(held) > LINE_BYTES_MAX:
            yield held.decode(errors="replace")
            held = b""
    if held:
        yield held.decode(errors="replace")


def run_on(pipe: Pipe, text: str, within_s: float) -> Done:
    """Give a short command its input, and return its result.

    Raises:
        TimeoutError: it took longer than allowed, and was left.
        OSError: the connection was lost.
    """
    late = threading.Event()

    def leave() -> None:
        late.set()
        pipe.kill()

    timer = threading.Timer(within_s, leave)
    timer.daemon = True
    timer.start()
    try:
        with contextlib.suppress(OSError):  # it takes no input, and its output says why
            pipe.write(text.encode())
        pipe.end_input()
        kept: deque[str] = deque()
        size = 0
        for line in pipe.lines():
            kept.append(line)
            size += len(line) + 1
            while size > OUTPUT_BYTES_MAX:
                size -= len(kept.popleft()) + 1
        return Done(pipe.status(), "\n".join(kept))
    except OSError as error:
        if late.is_set():
            raise TimeoutError(f"no end within {within_s:g} s") from error
        raise
    finally:
        timer.cancel()
        pipe.close()
