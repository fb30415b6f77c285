"""This machine as a host, by a shell in a child process: for tests, and to try a run without SSH."""

from __future__ import annotations

import os
from typing import Final

from resilient_scoop.errors import PlaceBusyError, PlaceRefusedError
from resilient_scoop.hosts.child import ChildPipe
from resilient_scoop.hosts.door import RUN_S, Done, Pipe, run_on

LOOPBACK: Final = "127.0.0.1"


class LocalDoor:
    """Commands on this machine, read by a shell as sshd would have them read."""

    kind = "local"

    def __init__(self, name: str, shell: str = "/bin/sh") -> None:
        self._name = name
        self._shell = shell

    def connect(self) -> None:
        """Do nothing: a local host needs no connection."""

    def open(self, command: str) -> Pipe:
        """Start a command."""
        try:
            return ChildPipe([self._shell, "-c", command], os.environ)
        except OSError as error:
            raise PlaceRefusedError(
                f"{self._name}: {self._shell} cannot be started: {error.strerror}; name another shell"
            ) from error

    def run(self, command: str, text: str = "", *, within_s: float = RUN_S) -> Done:
        """Run a short command."""
        pipe = self.open(command)
        try:
            return run_on(pipe, text, within_s)
        except OSError as error:
            raise PlaceBusyError(f"{self._name}: a command failed: {error}; try again") from error
        finally:
            pipe.close()

    def route(self) -> str | None:
        """Return the loopback address."""
        return LOOPBACK

    def tunnel(self, port: int, address: str = LOOPBACK) -> str:
        """Return the address itself: it can be reached without a tunnel."""
        return f"{address}:{port}"

    def shell_line(self, command: str) -> str:
        """Return a command line that a user could type."""
        return command

    def close(self) -> None:
        """Do nothing: there is no connection."""
