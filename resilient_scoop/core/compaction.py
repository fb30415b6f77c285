"""The machine of a compaction: what is copied from the old data file to the new one, and in which order.

A snapshot of the old file is copied while commits continue in it. The keys that they write, and the
prefixes that they erase, are noted. Then the noted places are copied from the old file, one step at a
time between commits, until nothing is left; then the new file replaces the old one.

  CO1  Until the new file is durably the journal's, all that is written to it was written to the old one.
  CO2  Between the last step of catching up and the swap there is no commit.
  CO3  A data file that `generation.json` does not name does not count: a process that opens the journal
      for writing removes it. So a process that is killed at any point leaves one valid file.
  CO4  Noted prefixes are erased before noted keys are copied, and a step copies the present value of its
      key. A key that was put after an erasure of its prefix is noted after it, so it is copied later.
  CO5  The file that `generation.json` names is never removed, and the old file only after the new name is
       durable.
  CO6  A failure before the swap gives the compaction up, changes nothing, and is tried again later.

The shell handles the files themselves (`journal/compact.py`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import Enum, auto
from itertools import islice
from typing import Final, Protocol

import msgspec

from resilient_scoop.core.events import Change, Erase, Table
from resilient_scoop.errors import InvariantError


class GivenUpError(Exception):
    """The compaction cannot continue; the text says why. The journal is unchanged."""


class Phase(Enum):
    """The phases of a compaction."""

    COPYING = auto()
    CATCHING_UP = auto()  # (catching up) the copy is complete
    SWAPPED = auto()  # the new file counts
    GIVEN_UP = auto()


_NEXT: Final = {
    Phase.COPYING: (Phase.CATCHING_UP, Phase.GIVEN_UP),
    Phase.CATCHING_UP: (Phase.SWAPPED, Phase.GIVEN_UP),
    Phase.SWAPPED: (),
    Phase.GIVEN_UP: (),
}
Place = tuple[Table, bytes]


class OldFile(Protocol):
    """One moment of the old data file."""

    def get(self, table: Table, key: bytes) -> bytes | None:
        """Return a stored record."""


class NewFile(Protocol):
    """The new data file, within one transaction."""

    def erase(self, table: Table, prefix: bytes, records_max: int) -> bool:
        """Delete by prefix, up to a number of records; return whether all are deleted."""

    def take(self, table: Table, key: bytes, stored: bytes | None) -> None:
        """Replace the record of a key by a stored one; None deletes."""


class Step(msgspec.Struct, frozen=True):
    """The changes of one transaction of the new file."""

    prefixes: tuple[Place, ...]
    keys: tuple[Place, ...]
    records_max: int  # records to be deleted per prefix

    def carry_out(self, old: OldFile, new: NewFile) -> int:
        """Carry it out; return how many prefixes are done. Keys are done only after all prefixes (CO4)."""
        for at, (table, prefix) in enumerate(self.prefixes):
            if not new.erase(table, prefix, self.records_max):
                return at
        for table, key in self.keys:
            new.take(table, key, old.get(table, key))
        return len(self.prefixes)


class Course(msgspec.Struct):
    """The state of one compaction."""

    noted_max: int  # limit of noted places; beyond it the compaction is given up
    step_records: int  # places copied between two commits
    phase: Phase = Phase.COPYING
    keys: dict[Place, None] = {}  # oldest first
    prefixes: dict[Place, None] = {}
    unstepped: int = 0  # places noted since the last step

    @property
    def may_swap(self) -> bool:
        """Whether the new file may replace the old one now, before any commit (CO2)."""
        return self.phase is Phase.CATCHING_UP and not self.keys and not self.prefixes

    def note(self, changes: Sequence[Change], kept: Sequence[bytes]) -> None:
        """Note what a commit has touched; `kept` are the keys that it put into HISTORY.

        Raises:
            GivenUpError: this is too much.
        """
        for change in changes:
            if isinstance(change, Erase):
                self.prefixes[change.table, change.prefix] = None
            else:
                self.keys[change.table, change.key] = None
        for key in kept:
            self.keys[Table.HISTORY, key] = None
        self.unstepped += len(changes) + len(kept)
        if len(self.keys) + len(self.prefixes) > self.noted_max:
            raise GivenUpError("the run writes faster than its journal can be copied")

    def copied(self) -> None:
        """Record that the copy is complete."""
        self._enter(Phase.CATCHING_UP)

    def next_step(self) -> Step:
        """Return the next step.

        Its size is 1.5 times the number of places noted since the last step, so that the work ends.
        """
        if self.phase is not Phase.CATCHING_UP:
            raise InvariantError(f"a compaction catches up in phase {self.phase.name}")
        most = max(self.step_records, self.unstepped + self.unstepped // 2)
        return Step(tuple(self.prefixes), tuple(islice(self.keys, most)), most)

    def done(self, step: Step, prefixes: int) -> None:
        """Record that a step is in the new file, with a number of its prefixes (`carry_out`)."""
        self.unstepped = 0
        for place in step.prefixes[:prefixes]:
            del self.prefixes[place]
        if prefixes == len(step.prefixes):
            for place in step.keys:
                del self.keys[place]

    def swapped(self) -> None:
        """Record that the new file is durably the current one."""
        if not self.may_swap:
            raise InvariantError(f"a swap before all was caught up with, in {self.phase.name}")
        self._enter(Phase.SWAPPED)

    def give_up(self) -> None:
        """Record that the compaction was given up."""
        self._enter(Phase.GIVEN_UP)

    def _enter(self, phase: Phase) -> None:
        if phase not in _NEXT[self.phase]:
            raise InvariantError(f"a compaction goes from {self.phase.name} to {phase.name}")
        self.phase = phase


def obsolete(numbers: Iterable[int], kept: int, *, newer: bool = True) -> list[int]:
    """Return which data files may be removed if file number `kept` durably counts (CO3, CO5).

    Without `newer`, files of a running compaction are kept: files are numbered in order.
    """
    return [each for each in numbers if each != kept and (newer or each < kept)]
