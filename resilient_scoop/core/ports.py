"""What the machines need of each other and of their shells, as small protocols."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable

    from resilient_scoop.core.events import Table


class Reader(Protocol):
    """What is read back from the journal."""

    def read(
        self,
        table: Table,
        prefix: bytes = b"",
        after: bytes | None = None,
        limit_bytes: int | None = None,
    ) -> list[tuple[bytes, bytes]]:
        """Return records in key order."""

    def get(self, table: Table, key: bytes) -> bytes | None:
        """Return one record."""


class Readable(Reader, Protocol):
    """What is read of a journal by those who look at a run."""

    def scan(self, table: Table) -> Iterable[tuple[bytes, bytes]]:
        """Return all records of a table in the order of their keys."""
