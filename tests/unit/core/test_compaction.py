"""The steps of a compaction, with two plain dictionaries as files."""

from __future__ import annotations

import random

import pytest

from resilient_scoop.core.compaction import Course, GivenUpError, Phase, obsolete
from resilient_scoop.core.events import Change, Erase, Put, Table
from resilient_scoop.errors import InvariantError


class File(dict[tuple[Table, bytes], bytes]):
    """A data file."""

    def get(self, table: Table, key: bytes) -> bytes | None:  # type: ignore[override]
        return dict.get(self, (table, key))

    def erase(self, table: Table, prefix: bytes, records_max: int) -> bool:
        found = [each for each in self if each[0] is table and each[1].startswith(prefix)]
        for each in found[:records_max]:
            del self[each]
        return len(found) <= records_max

    def take(self, table: Table, key: bytes, stored: bytes | None) -> None:
        self.pop((table, key), None)
        if stored is not None:
            self[table, key] = stored

    def commit(self, changes: list[Change]) -> None:
        for change in changes:
            if isinstance(change, Erase):
                self.erase(change.table, change.prefix, 1 << 60)
            else:
                self[change.table, change.key] = change.value


def step(course: Course, old: File, new: File) -> None:
    now = course.next_step()
    course.done(now, now.carry_out(old, new))


def changes_of(rng: random.Random) -> list[Change]:
    """Return a commit of puts and erasures of the same keys."""
    made: list[Change] = []
    for _ in range(rng.randint(0, 4)):
        table, group = rng.choice([Table.LOG, Table.ARGS]), b"%d." % rng.randrange(2)
        if rng.random() < 0.3:
            made.append(Erase(table, group))
        else:
            made.append(Put(table, group + b"%d" % rng.randrange(6), rng.randbytes(2)))
    return made


@pytest.mark.parametrize("seed", range(200))
def test_the_new_file_equals_the_old_one_when_it_may_replace_it(seed: int) -> None:
    # Given noted commits before the moment of the copy, and commits after it
    rng = random.Random(seed)
    old, course = File(), Course(noted_max=1000, step_records=rng.choice((1, 2, 500)))

    def commit() -> None:
        changes = changes_of(rng)
        old.commit(changes)
        course.note(changes, [])

    for _ in range(rng.randint(0, 9)):
        commit()
    new = File(old)
    for _ in range(rng.randint(0, 9)):
        commit()
    course.copied()

    # When the copy catches up between further commits, which may or may not end
    steps = 0
    while not course.may_swap:
        step(course, old, new)
        steps += 1
        assert steps < 100, "it must come to an end"
        if rng.random() < 0.5:
            commit()

    # Then the new file has every record, and no other
    assert new == old
    course.swapped()
    assert course.phase is Phase.SWAPPED


def test_keys_put_into_history_are_noted_too() -> None:
    old, new, course = File(), File(), Course(10, 10)
    old[Table.HISTORY, b"k"] = b"v"
    course.note([Erase(Table.LOG, b"k")], [b"k"])
    course.copied()
    step(course, old, new)
    assert new == old


def test_keys_wait_for_an_interrupted_erasure() -> None:
    old, new = (
        File({(Table.LOG, b"p.9"): b"new"}),
        File({(Table.LOG, b"p.%d" % i): b"" for i in range(5)}),
    )
    course = Course(100, 2)
    course.note([Erase(Table.LOG, b"p.")], [])
    course.copied()
    course.note([Put(Table.LOG, b"p.9", b"new")], [])
    step(course, old, new)
    assert len(new) == 2, "half as many more as were noted"
    assert (Table.LOG, b"p.9") in course.keys
    step(course, old, new)
    assert course.may_swap
    assert new == old


def test_a_compaction_with_too_many_noted_keys_is_given_up() -> None:
    course = Course(noted_max=3, step_records=1)
    course.note([Put(Table.LOG, b"%d" % i, b"") for i in range(3)], [])
    course.note([Put(Table.LOG, b"1", b"")], [])
    with pytest.raises(GivenUpError, match="faster"):
        course.note([Erase(Table.LOG, b"")], [])


def test_an_impossible_transition_is_refused() -> None:
    course = Course(10, 10)
    with pytest.raises(InvariantError):
        course.next_step()
    with pytest.raises(InvariantError):
        course.swapped()
    course.copied()
    course.note([Put(Table.LOG, b"k", b"")], [])
    with pytest.raises(InvariantError):
        course.swapped()  # it lags behind
    course.give_up()
    for way in (course.copied, course.give_up, course.swapped, course.next_step):
        with pytest.raises(InvariantError):
            way()


def test_the_named_file_and_running_compactions_are_never_obsolete() -> None:
    assert obsolete([0, 1, 2, 3], 2) == [0, 1, 3]
    assert obsolete([0, 1, 2, 3], 2, newer=False) == [0, 1]
    assert obsolete([0], 0) == []
