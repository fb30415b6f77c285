"""Doubles of the outside world; `tests/contract` proves that they behave like the real ones.

`MemoryJournal` keeps a journal in memory; `MemoryCommitter` commits when told, in the caller's
thread, so that a simulation decides what is durable at a power failure.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from enum import Enum, auto
from typing import Self

from resilient_scoop.core.events import Change, Erase, Put, Table
from resilient_scoop.errors import (
    InvariantError,
    JournalDamagedError,
    JournalError,
    JournalFullError,
)
from resilient_scoop.journal.place import FORMAT
from resilient_scoop.journal.write import KEY_BYTES_MAX

Tables = dict[Table, dict[bytes, bytes]]


class Failure(Enum):
    """How a commit of `MemoryJournal` fails."""

    NO_SPACE = auto()  # nothing written, usable
    IO_ERROR = auto()  # nothing written, refuses further use
    IO_ERROR_BUT_WRITTEN = auto()  # as after a failed sync: written after all, refuses further use


class MemoryJournal:
    """A journal in memory: after `commit` has returned, its changes survive `crash`; nothing else does."""

    def __init__(self, run: bytes = b"r" * 16) -> None:
        self.run = run
        self.generation = 0
        self.commits = 0
        self.failures: deque[Failure] = deque()
        self._tables: Tables = {table: {} for table in Table}
        self._damaged: set[tuple[Table, bytes]] = set()
        self._failed: JournalError | None = None
        self._closed = False
        self.commit([Put(Table.META, b"run", run), Put(Table.META, b"format", bytes((FORMAT,)))])
        self._open()

    def commit(self, changes: Sequence[Change]) -> None:
        if self._failed is not None:
            raise self._failed
        if self._closed:
            raise InvariantError("commit to a closed journal")
        for change in changes:
            if isinstance(change, Put) and not 0 < len(change.key) <= KEY_BYTES_MAX:
                raise ValueError(f"a key of {len(change.key)} bytes, not 1 to {KEY_BYTES_MAX}")
        failure = self.failures.popleft() if self.failures else None
        if failure is Failure.NO_SPACE:
            raise JournalFullError("memory", "a commit", "told to have no space")
        if failure is not Failure.IO_ERROR:
            self._apply(changes)
        if failure is not None:
            self._failed = JournalError("memory", "a commit", "told to fail")
            raise self._failed
        self.commits += 1

    def fail_next(self, failure: Failure, times: int = 1) -> None:
        """Let the next commits fail."""
        self.failures.extend([failure] * times)

    def damage(self, table: Table, key: bytes) -> None:
        """Flip a bit in one record."""
        self._damaged.add((table, key))

    def crash(self) -> Self:
        """Simulate a kill of the process; return the journal as opened again."""
        self._closed = True
        other = type(self)(self.run)
        other._tables = {table: dict(records) for table, records in self._tables.items()}
        other._damaged = set(self._damaged)
        other.generation = self.generation
        other._open()
        return other

    def read(
        self,
        table: Table,
        prefix: bytes = b"",
        after: bytes | None = None,
        limit_bytes: int | None = None,
    ) -> list[tuple[bytes, bytes]]:
        found: list[tuple[bytes, bytes]] = []
        taken_bytes = 0
        for key in sorted(self._tables[table]):
            if not key.startswith(prefix) or (after is not None and key <= after):
                continue
            found.append((key, self._value(table, key)))
            taken_bytes += len(found[-1][1])
            if limit_bytes is not None and taken_bytes >= limit_bytes:
                break
        return found

    def get(self, table: Table, key: bytes) -> bytes | None:
        return self._value(table, key) if key in self._tables[table] else None

    def scan(self, table: Table) -> Iterator[tuple[bytes, bytes]]:
        after = None
        while page := self.read(table, b"", after, 4096):
            yield from page
            after = page[-1][0]

    def count(self, table: Table) -> int:
        return len(self._tables[table])

    def size_bytes(self) -> int:
        return sum(
            len(key) + len(value)
            for records in self._tables.values()
            for key, value in records.items()
        )

    def close(self, clean: bool) -> None:  # noqa: FBT001 - as the journal has it
        self._closed = True

    def _open(self) -> None:
        self.generation += 1
        self.commit([Put(Table.META, b"generation", self.generation.to_bytes(8, "big"))])

    def _apply(self, changes: Sequence[Change]) -> None:
        for change in changes:
            records = self._tables[change.table]
            if isinstance(change, Erase):
                for key in [key for key in records if key.startswith(change.prefix)]:
                    del records[key]
            else:
                records[change.key] = bytes(change.value)

    def _value(self, table: Table, key: bytes) -> bytes:
        if (table, key) in self._damaged:
            raise JournalDamagedError("memory", "told to be damaged", table.name.lower(), key)
        return self._tables[table][key]


class MemoryCommitter:
    """The committer without its thread: changes are pending until `run` commits them."""

    def __init__(self, journal: MemoryJournal, wake: Callable[[], None] = lambda: None) -> None:
        self.journal = journal
        self.committed = 0
        self.error: BaseException | None = None
        self.full = False
        self._wake = wake
        self._turns: deque[tuple[int, list[Change]]] = deque()

    @property
    def queued_bytes(self) -> int:
        return sum(
            len(change.key) + len(change.value)
            for _, changes in self._turns
            for change in changes
            if isinstance(change, Put)
        )

    def put(self, turn: int, changes: list[Change]) -> None:
        if self.error is not None:
            raise self.error
        self._turns.append((turn, changes))

    def run(self, turns: int | None = None) -> int:
        """Commit the oldest `turns` (default: all) in one transaction; return `committed`."""
        count = len(self._turns) if turns is None else min(turns, len(self._turns))
        group = [self._turns[i] for i in range(count)]
        if not group or self.error is not None:
            return self.committed
        try:
            self.journal.commit([change for _, changes in group for change in changes])
        except JournalFullError:
            self.full = True
        except JournalError as error:
            self.error = error
        else:
            for _ in group:
                self._turns.popleft()
            self.committed, self.full = group[-1][0], False
        self._wake()
        return self.committed

    def flush(self, timeout_s: float | None = None) -> bool:
        self.run()
        if self.error is not None:
            raise self.error
        return not self._turns

    def close(self) -> None:
        self.run()

    def crash(self) -> MemoryJournal:
        """Simulate a power failure: pending changes are lost; return the journal as opened again."""
        self._turns.clear()
        return self.journal.crash()
