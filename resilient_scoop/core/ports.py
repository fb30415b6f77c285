"""Small protocols for what the machines need from each other and from their shells."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable

    from resilient_scoop.core.events import Table


class Reader(Protocol):
    """Reads records back from the journal."""

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
    """Reads a journal for status and reports."""

    def scan(self, table: Table) -> Iterable[tuple[bytes, bytes]]:
        """Return all records of a table in the order of their keys."""
