"""Small protocols for what the machines need from each other and from their shells."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

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


class CallableUsers(Protocol):
    """The parts that use callables, and keep measurements of them."""

    def callables_in_use(self) -> set[bytes]:
        """Return the callables that are needed now."""

    def forget_callables(self, gone: Collection[bytes]) -> None:
        """Keep nothing of callables that are dropped."""


class EvictionRounds(Protocol):
    """The rounds in which processes forget callables (`core.broker.callable_eviction`)."""

    announced: set[bytes]

    @property
    def is_over(self) -> bool:
        """Whether there was a round, and all have answered, and its result is not being used."""

    def begin_search(self) -> None:
        """Use the result of the last round from now on: no other round may begin."""

    def end_search(self) -> None:
        """Record that the search has ended."""
