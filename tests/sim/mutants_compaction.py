"""Planted bugs in code that compacts the journal while its run continues, and that opens it afterwards.

Most are planted in the real machine. Which file an opening chooses, and when the old one is
removed, is decided by `Journal`: these two bugs are planted in its double, and show that the checks
would detect them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from resilient_scoop.core import compaction
from resilient_scoop.core.compaction import Course, GivenUpError, Phase, Step
from resilient_scoop.core.events import Erase, Put
from tests.sim import compactions
from tests.sim.compactions import POINTS, Compactor, Disk, Habit
from tests.sim.planting import Mutant, Patch

Noted = Sequence[Put | Erase]


def _noting(what: Callable[[Course, Noted, Sequence[bytes]], tuple[Noted, Sequence[bytes]]]) -> Any:
    """Return patches that note only a part of the committed changes."""
    note = Course.note

    def bug(self: Course, changes: Noted, kept: Sequence[bytes]) -> None:
        note(self, *what(self, changes, kept))

    return lambda: [(Course, "note", bug)]


def _while_copying(course: Course, changes: Noted, kept: Any) -> tuple[Noted, Sequence[bytes]]:
    return ([], []) if course.phase is Phase.COPYING else (changes, kept)


def _while_catching_up(course: Course, changes: Noted, kept: Any) -> tuple[Noted, Sequence[bytes]]:
    return ([], []) if course.phase is Phase.CATCHING_UP else (changes, kept)


def _too_many_forgotten() -> Sequence[Patch]:
    note = Course.note

    def bug(self: Course, changes: Noted, kept: Sequence[bytes]) -> None:
        before = dict(self.keys), dict(self.prefixes)
        try:
            note(self, changes, kept)
        except GivenUpError:
            self.keys, self.prefixes = before

    return [(Course, "note", bug)]


def _values_as_noted() -> Sequence[Patch]:
    note, values = Course.note, dict[Any, bytes]()

    class Noted:
        def __init__(self, old: Any) -> None:
            self.old = old

        def get(self, *place: Any) -> bytes | None:
            found: bytes | None = values.get(place, self.old.get(*place))
            return found

    def noting(self: Course, changes: Any, kept: Sequence[bytes]) -> None:
        values.update({(c.table, c.key): c.value for c in changes if isinstance(c, Put)})
        note(self, changes, kept)

    def bug(self: Step, old: Any, new: Any) -> int:
        return carry_out(self, Noted(old), new)

    carry_out = Step.carry_out
    return [(Course, "note", noting), (Step, "carry_out", bug)]


def _keys_before_prefixes() -> Sequence[Patch]:
    def bug(self: Step, old: Any, new: Any) -> int:
        carry_out(replace(self, prefixes=()), old, new)
        return carry_out(replace(self, keys=()), old, new)

    carry_out = Step.carry_out
    return [(Step, "carry_out", bug)]


def _cut_short_is_done() -> Sequence[Patch]:
    carry_out = Step.carry_out

    def bug(self: Step, old: Any, new: Any) -> int:
        for prefix in self.prefixes:
            carry_out(replace(self, prefixes=(prefix,), keys=()), old, new)
        return carry_out(replace(self, prefixes=()), old, new) + len(self.prefixes)

    return [(Step, "carry_out", bug)]


def _keys_forgotten_at_a_cut() -> Sequence[Patch]:
    done = Course.done

    def bug(self: Course, step: Step, prefixes: int) -> None:
        done(self, step, prefixes)
        for place in step.keys:
            self.keys.pop(place, None)

    return [(Course, "done", bug)]


def _swapped_early() -> Sequence[Patch]:
    def bug(self: Course) -> bool:
        return self.phase is Phase.CATCHING_UP and len(self.keys) <= self.step_records

    return [(Course, "may_swap", property(bug))]


def _newer(*, newer: bool) -> Callable[[], Sequence[Patch]]:
    def bug(numbers: Any, kept: int, **_: Any) -> list[int]:
        return compaction.obsolete(numbers, kept, newer=newer)

    return lambda: [(compactions, "obsolete", bug)]


def _old_removed_early() -> Sequence[Patch]:
    rename = Compactor._rename

    def bug(self: Compactor, course: Course) -> None:
        old = self.disk.named
        try:
            rename(self, course)
        finally:
            if self.disk.named != old:
                self.disk.files.pop(old, None)

    return [(Compactor, "_rename", bug)]


def _abandoned_counted() -> Sequence[Patch]:
    def bug(self: Disk) -> int:
        return max(self.files)

    return [(Disk, "counting", bug)]


_LONG = (("map", "long", [1, 2, 3]), ("map", "fan", [[2, 3, "leaf"]] * 3), ("map", "long", [1]))
_OFTEN = Habit(
    rest_s=0.1, copy_s=0.2, step_s=0.01, sync_s=0.05, remove_s=0.5, step_records=3, noted_max=1 << 20,
    fails=0.0, power=0.3, points=dict.fromkeys(POINTS, 0.05), keep_history=False,
)  # fmt: skip
_BY_ONE = replace(_OFTEN, step_records=1, step_s=0.1)


def _weather(habit: Habit) -> dict[str, Any]:
    return {
        "rates": {"worker": 0.5, "broker": 0.2, "both": 0.2},
        "until": 8.0,
        "edits": False,
        "compaction": habit,
    }


def _mutant(name: str, patches: Callable[[], Sequence[Patch]], habit: Habit = _OFTEN) -> Mutant:
    return Mutant(name, patches, _LONG, _weather(habit))


COMPACTION_MUTANTS = (
    _mutant("not noted while it copies", _noting(_while_copying)),
    _mutant("not noted while it catches up", _noting(_while_catching_up), _BY_ONE),
    _mutant(
        "erasures not noted",
        _noting(lambda _, changes, kept: ([c for c in changes if isinstance(c, Put)], kept)),
    ),
    _mutant(
        "history not noted",
        _noting(lambda _course, changes, _kept: (changes, ())),
        replace(_OFTEN, keep_history=True),
    ),
    _mutant("too many to note forgotten", _too_many_forgotten, replace(_OFTEN, noted_max=20)),
    _mutant("values as they were noted", _values_as_noted),
    _mutant("keys before prefixes", _keys_before_prefixes),
    _mutant("an erasure cut short is done", _cut_short_is_done, _BY_ONE),
    _mutant("keys forgotten at a cut", _keys_forgotten_at_a_cut, _BY_ONE),
    _mutant("swapped before it has caught up", _swapped_early),
    _mutant("an abandoned copy kept", _newer(newer=False)),
    _mutant("what is under way removed", _newer(newer=True)),
    _mutant("an abandoned copy counted", _abandoned_counted),
    _mutant("the old file goes too early", _old_removed_early),
)
