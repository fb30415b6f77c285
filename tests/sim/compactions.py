"""The journal's folder while it is compacted: its data files, and which of them is current.

The real machine (`core/compaction.py`) decides the steps; this module has the disk, the child that
copies, the thread that removes, and the points at which they may die. A kill leaves what was done
before it, also an unfinished copy. A power cut, or a kill followed by one, may undo what was not
synced: the new name of the current file, or a removal. Commits to a file are synced.

All random draws come from a separate generator: worlds without a compaction are unchanged.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from resilient_scoop.core.compaction import Course, GivenUpError, obsolete
from resilient_scoop.core.events import Change, Erase, Put, Table
from tests.fakes import MemoryJournal, Tables
from tests.sim.cancels import Broken

if TYPE_CHECKING:
    from tests.sim.shells import BrokerShell
    from tests.sim.world import World

POINTS = (
    "begun", "copying", "copied", "caught up", "before swap", "renamed", "swapped",
    "before removal", "after removal",
)  # fmt: skip
_REOPEN_DIES = 0.1
_LATE_S = 2.0
"""Compactions are begun so long after the last fault."""
_GENERATION = b"generation"  # an interrupted opening may have raised it in either file


@dataclass(frozen=True, slots=True)
class Habit:
    """How often a journal is compacted, how long that takes, and how often it fails."""

    rest_s: float  # between two, on average
    copy_s: float  # duration, at most
    step_s: float  # between two steps of catching up
    sync_s: float  # duration of the rename
    remove_s: float  # until the old file is gone, at most
    step_records: int
    noted_max: int
    fails: float  # chance that the disk refuses the copy, a step or the rename
    power: float  # chance that all processes die at a point
    points: dict[str, float]  # chance of a death at a point
    keep_history: bool

    @classmethod
    def draw(cls, rng: random.Random) -> Habit | None:
        if rng.random() < 0.5:
            return None
        points = {label: rng.choice((0.03, 0.2)) for label in POINTS if rng.random() < 0.3}
        return cls(
            rest_s=rng.choice((0.05, 0.3, 1.0)),
            copy_s=rng.choice((0.01, 0.2, 2.0)),
            step_s=rng.choice((0.0005, 0.01, 0.1)),
            sync_s=rng.choice((0.001, 0.05)),
            remove_s=rng.choice((0.01, 0.5)),
            step_records=rng.choice((1, 3, 500)),
            noted_max=rng.choice((20, 1000, 1 << 20, 1 << 20)),
            fails=rng.choice((0.0, 0.0, 0.1)),
            power=rng.choice((0.0, 0.3)),
            points=points,
            keep_history=rng.random() < 0.3,
        )


@dataclass(slots=True)
class Disk:
    """What is in the journal's folder."""

    rng: random.Random
    files: dict[int, Tables]  # data files by the number of their folder
    double: Tables  # all that was committed, kept separately
    named: int = 0  # number of the current file
    before: int | None = None  # the current file after a power failure: the rename is not synced
    unsynced: dict[int, Tables] = field(default_factory=dict)  # removed; may come back
    counts: Counter[str] = field(default_factory=Counter)  # results, for the report

    def reopened(self) -> Tables:
        """Open the files that a death has left; return the content of the current file.

        An opening may be interrupted too, at any of its steps.
        """
        while not self._opening():
            pass
        if list(self.files) != [self.named]:
            raise Broken(f"ALWAYS-OPENS: {list(self.files)} are left where {self.named} counts")
        return self.files[self.named]

    def _opening(self) -> bool:
        if self.rng.random() < 0.5:  # the power has failed in between
            self._lose_unsynced()
        self.check(self.file(self.counting()), self.double, "what is opened")
        if self._dies():
            return False
        self.synced()  # the name is written again
        if self._dies():
            return False
        for number in obsolete(list(self.files), self.named):
            self.remove(number)
            if self._dies():
                return False
        return True

    def counting(self) -> int:
        """Return which file an opening chooses."""
        return self.named

    def synced(self) -> None:
        """Sync the folder: its names and its removals become durable."""
        self.before = None
        self.unsynced.clear()

    def _dies(self) -> bool:
        return self.rng.random() < _REOPEN_DIES

    def _lose_unsynced(self) -> None:
        if self.before is not None and self.rng.random() < 0.5:
            self.named, self.before = self.before, None
        for number, content in self.unsynced.items():
            if number not in self.files and self.rng.random() < 0.5:
                self.files[number] = content
        self.unsynced.clear()

    def remove(self, number: int) -> None:
        if number in (self.named, self.before):
            raise Broken(f"ALWAYS-OPENS: file {number} is removed, and may be what counts")
        self.unsynced[number] = self.file(number)
        del self.files[number]

    def file(self, number: int) -> Tables:
        """Return the content of a file that must exist."""
        if number not in self.files:
            raise Broken(f"ALWAYS-OPENS: file {number} is not there")
        return self.files[number]

    def check(self, content: Tables, expected: Tables, what: str) -> None:
        """Raise if a file does not have the expected content."""
        for table in Table:
            mine, theirs = content[table], expected[table]
            if mine != theirs:
                keys = {key for key in mine.keys() | theirs.keys()
                        if mine.get(key) != theirs.get(key)} - {_GENERATION}  # fmt: skip
                if keys:
                    raise Broken(f"ALWAYS-OPENS: {what} differs in {table.name} {sorted(keys)}")


class FileJournal(MemoryJournal):
    """A journal whose data file is one of several."""

    disk: Disk | None = None
    keep_history = False
    compactor: Compactor | None = None

    def keep_on(self, rng: random.Random, *, keep_history: bool) -> Self:
        """Begin with the folder as it is."""
        self.disk = Disk(rng, {0: self._tables}, copied(self._tables))
        self.keep_history = keep_history
        return self

    def crash(self) -> Self:
        disk = self.disk
        assert disk is not None, "it has begun"
        self._tables = disk.reopened()
        other = super().crash()
        other.disk, other.keep_history = disk, self.keep_history
        disk.files[disk.named] = other._tables
        return other

    def commit(self, changes: Sequence[Change]) -> None:
        super().commit(changes if self.disk is None else [*changes, *self._events(self.disk.rng)])

    def _events(self, rng: random.Random) -> list[Change]:
        """Return additional changes: puts and erasures in any order that is possible in the runtime."""
        changes: list[Change] = []
        for _ in range(rng.choice((0, 1, 2, 5))):
            group = b"%d." % rng.randrange(3)
            if rng.random() < 0.2:
                changes.append(Erase(Table.EVENT, group))
            else:
                key = group + b"%d" % rng.randrange(9)
                changes.append(Put(Table.EVENT, key, rng.randbytes(2)))
        return changes

    def show(self, content: Tables) -> None:
        """Use the content of another file from now on."""
        self._tables = content

    def _apply(self, changes: Sequence[Change]) -> None:
        if self.compactor is not None and self.compactor.swapping:
            raise Broken("ALWAYS-OPENS: a commit while the file is swapped")
        kept: list[bytes] = []
        for change in changes:
            if isinstance(change, Erase):
                kept += self._erase(change)
            else:
                for tables in self._both():
                    tables[change.table][change.key] = bytes(change.value)
        if self.compactor is not None:
            self.compactor.note(changes, kept)

    def _erase(self, change: Erase) -> list[bytes]:
        """Erase a prefix; return the keys of the records that were moved to HISTORY."""
        kept: list[bytes] = []
        keep = self.keep_history and change.table is Table.LOG
        keys = [key for key in self._tables[change.table] if key.startswith(change.prefix)]
        for tables in self._both():
            records = tables[change.table]
            for key in keys:
                if keep:
                    tables[Table.HISTORY][bytes((change.table,)) + key] = records[key]
                del records[key]
        if keep:
            kept += [bytes((change.table,)) + key for key in keys]
        return kept

    def _both(self) -> list[Tables]:
        return [self._tables] if self.disk is None else [self._tables, self.disk.double]


def copied(tables: Tables) -> Tables:
    return {table: dict(records) for table, records in tables.items()}


@dataclass(frozen=True, slots=True)
class _File:
    """A data file, as the machine reads and writes it."""

    tables: Tables

    def get(self, table: Table, key: bytes) -> bytes | None:
        return self.tables[table].get(key)

    def erase(self, table: Table, prefix: bytes, records_max: int) -> bool:
        keys = sorted(key for key in self.tables[table] if key.startswith(prefix))
        for key in keys[:records_max]:
            del self.tables[table][key]
        return len(keys) <= records_max

    def take(self, table: Table, key: bytes, stored: bytes | None) -> None:
        if stored is None:
            self.tables[table].pop(key, None)
        else:
            self.tables[table][key] = stored


class Compactor:
    """Compacts the journal in one life of a broker: writer thread, child and remover."""

    def __init__(self, shell: BrokerShell, journal: FileJournal, habit: Habit) -> None:
        assert journal.disk is not None, "it has begun"
        self.shell = shell
        self.world: World = shell.world
        self.journal = journal
        self.disk = journal.disk
        self.habit = habit
        self.rng = self.disk.rng
        self.course: Course | None = None
        self.number = 0
        self.swapping = False
        journal.compactor = self
        self._rest()

    def _rest(self) -> None:
        if self.world.now < self.world.climate.until + _LATE_S:
            self._at(self.rng.expovariate(1 / self.habit.rest_s), self._begin)

    def _at(self, delay_s: float, do: Callable[..., None], *args: object) -> None:
        self.world.at(delay_s, self.shell, do, *args)

    def note(self, changes: Sequence[Change], kept: Sequence[bytes]) -> None:
        """Tell the machine that a commit is done."""
        if self.course is not None:
            try:
                self.course.note(changes, kept)
            except GivenUpError:
                self._give_up("noted too much")

    def _begin(self) -> None:
        """Make a folder, and start the child."""
        self.number = self.disk.named + 1
        self.course = Course(self.habit.noted_max, self.habit.step_records)
        self.disk.files[self.number] = {table: {} for table in Table}
        self._point("begun")
        start_s = 0.1 * self.rng.random()
        self.world.at(start_s, None, self._copy, self.course, self.number)

    def _copy(self, course: Course, number: int) -> None:
        """Let the child copy; it dies with its parent, but does not pause with it."""
        if not self.shell.alive or self.course is not course:
            return
        snapshot = copied(self.journal._tables)
        some = {table: dict(list(each.items())[::2]) for table, each in snapshot.items()}
        self.disk.files[number] = some
        self._at(self.habit.copy_s * self.rng.random(), self._copied, course, snapshot)
        self._point("copying")

    def _copied(self, course: Course, snapshot: Tables) -> None:
        if self.course is not course:
            return
        self._point("copied")
        if self._refused():
            self._give_up("no copy")
            return
        self.disk.files[self.number] = snapshot
        self.disk.unsynced.clear()  # the child syncs the folder
        course.copied()
        self._at(0.02 * self.rng.random(), self._catch_up, course)

    def _catch_up(self, course: Course) -> None:
        if self.course is not course:
            return
        if not course.may_swap:
            if self._refused():
                self._give_up("no step")
                return
            step = course.next_step()
            new = _File(self.disk.file(self.number))
            course.done(step, step.carry_out(_File(self.journal._tables), new))
            self._point("caught up")
        if course.may_swap:
            self._rename(course)
        else:
            self._at(self.habit.step_s * (0.5 + self.rng.random()), self._catch_up, course)

    def _rename(self, course: Course) -> None:
        """Rename to the new file. The rename is not durable yet, and there is no commit before it is."""
        disk = self.disk
        self._point("before swap")
        if self._refused():
            self._give_up("no rename")
            return
        disk.check(disk.file(self.number), self.journal._tables, "the new file")
        disk.named, disk.before = self.number, disk.named
        self.swapping = True
        self._at(self.habit.sync_s * self.rng.random(), self._synced, course)
        self._point("renamed")

    def _synced(self, course: Course) -> None:
        disk = self.disk
        disk.synced()
        disk.counts["compacted"] += 1
        disk.check(disk.file(self.number), disk.double, "the new file")
        self.journal.show(disk.files[self.number])
        course.swapped()
        self.course, self.swapping = None, False
        self._at(self.habit.remove_s * self.rng.random(), self._remove, self.number)
        self._rest()
        self._point("swapped")

    def _remove(self, kept: int) -> None:
        """Remove the old file; another compaction may be running."""
        self._point("before removal")
        for number in obsolete(list(self.disk.files), kept, newer=False):
            self.disk.remove(number)
        self._point("after removal")

    def _refused(self) -> bool:
        world = self.world
        full = world.now < world.full_until
        return full or (world.now < world.climate.until and self.rng.random() < self.habit.fails)

    def _give_up(self, why: str) -> None:
        assert self.course is not None, "one is under way"
        self.course.give_up()
        self.course = None
        self.disk.remove(self.number)
        self.disk.counts[f"given up: {why}"] += 1
        self.world.note(f"gives up: {why}", self.shell)
        self._rest()

    def _point(self, label: str) -> None:
        """Let the process die here, perhaps: alone, or with all others."""
        world = self.world
        chance = self.habit.points.get(label)
        if not chance or world.now >= world.climate.until or self.rng.random() >= chance:
            return
        everybody = self.rng.random() < self.habit.power
        world.dies(label, self.shell, self.shell.launcher.power_cut if everybody else None)
