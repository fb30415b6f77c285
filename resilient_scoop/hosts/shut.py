"""A door that refuses everything: of a host for which the configuration of SSH cannot be used."""

from __future__ import annotations

from typing import NoReturn

from resilient_scoop.errors import PlaceRefusedError
from resilient_scoop.hosts.door import RUN_S


class ShutDoor:
    """Refuses everything, with the reason; the other hosts of the run are not affected."""

    kind = "shut"

    def __init__(self, name: str, why: str) -> None:
        self._name = name
        self._why = why.removeprefix(f"{name}: ")

    def connect(self) -> NoReturn:
        """Refuse."""
        raise PlaceRefusedError(f"{self._name}: {self._why}")

    def open(self, command: str) -> NoReturn:  # noqa: ARG002 - the signature of a door
        """Refuse."""
        self.connect()

    def run(self, command: str, text: str = "", *, within_s: float = RUN_S) -> NoReturn:  # noqa: ARG002 - the protocol's
        """Refuse."""
        self.connect()

    def route(self) -> NoReturn:
        """Refuse."""
        self.connect()

    def tunnel(self, port: int, address: str = "127.0.0.1") -> NoReturn:  # noqa: ARG002 - the protocol's
        """Refuse."""
        self.connect()

    def shell_line(self, command: str) -> str:
        """Return the reason why there is no command."""
        return f"# not run: {self._why}; {command}"

    def close(self) -> None:
        """Do nothing: there is no connection."""
