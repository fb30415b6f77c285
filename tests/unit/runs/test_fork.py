"""Forks: which records of a journal are before a call of the script, and their keys in the fork."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from resilient_scoop import ids
from resilient_scoop.core.events import Change, Put, Table
from resilient_scoop.core.facts.parent import ParentFacts
from resilient_scoop.journal.journal import Journal
from resilient_scoop.journal.view import JournalView
from resilient_scoop.runs.fork import (
    Fork,
    Point,
    check_point,
    cut,
    cut_args,
    first_call,
    parse_batch,
)
from resilient_scoop.runs.stored_state import read_state
from resilient_scoop.wire import messages as wire
from tests.unit.bench import PLAIN, outcomes, part

OLD, NEW = b"o" * 16, b"n" * 16
NOW = wire.Attempt(3, 1)
NESTED = "0.2[1]"


def test_a_call_of_the_script_is_named_as_status_shows_it() -> None:
    assert [parse_batch(text) for text in ("0.17", "17", "0.3[1].2", "x", "", "0")] == [
        17, 17, None, None, None, 0,
    ]  # fmt: skip


def test_records_before_the_fork_point_are_kept() -> None:
    calls = wire.Calls(ids.ROOT, NOW, [part(1, 0, 2), part(2, 0, 3)])
    assert cut(calls, None) is calls
    assert cut(calls, Point(2)) == wire.Calls(ids.ROOT, NOW, [part(1, 0, 2)])
    assert cut(calls, Point(1)) is None
    both = wire.Outcomes(ids.ROOT, [outcomes(1, 0, 2).items[0], outcomes(2, 0, 3).items[0]])
    assert cut(both, Point(2)) == outcomes(1, 0, 2)
    crash, intent = wire.Crashed("0", 2, 0, -9, "crash", b""), wire.Intent("0", 2, 0, 1, b"")
    assert [cut(each, Point(at)) is each for each in (crash, intent) for at in (2, 3)] == [
        False, True, False, True,
    ]  # fmt: skip


def test_answers_are_kept_up_to_the_moment_when_the_call_was_made() -> None:
    observations = [wire.Observation(no, "once", at, b"") for no, at in enumerate((1, 2, 2, 3))]
    kept = cut(wire.Observed(ids.ROOT, NOW, observations), Point(2))
    assert kept == wire.Observed(ids.ROOT, NOW, observations[:3])
    assert cut(wire.Observed(ids.ROOT, NOW, observations[3:]), Point(2)) is None


def checkpoint(gen: int, calls: int, observations: int, **more: Any) -> wire.Checkpoint:
    fields: dict[str, Any] = {
        "name": "main",
        "opening": 0,
        "base": gen - 1,
        "entry": 1,
        "entry_observation": 0,
    }
    return wire.Checkpoint(
        ids.ROOT,
        NOW,
        gen=gen,
        calls=calls,
        observations=observations,
        payload=b"",
        **{**fields, **more},
    )


def test_a_checkpoint_that_was_made_before_is_kept() -> None:
    made = checkpoint(4, calls=7, observations=3)
    assert cut(made, Point(7), 50) is made
    assert cut(made, Point(6), 50) is None
    assert cut(made, Point(7, 3, 50), 50) is made
    assert cut(made, Point(7, 3, 49), 50) is None, "made later, with no call in between"


def test_a_fork_keeps_answers_up_to_its_checkpoint_and_none_after_it() -> None:
    observations = [wire.Observation(no, "once", 2, b"") for no in range(5)]
    kept = cut(wire.Observed(ids.ROOT, NOW, observations), Point(2, 3, 50))
    assert kept == wire.Observed(ids.ROOT, NOW, observations[:3])


def test_a_fork_keeps_only_trimmed_calls_before_its_point() -> None:
    trimmed = wire.Trimmed("0", [(1, 5), (8, 12)], [(0, 3), (4, 6)], 30, [("a", 0), ("b", 0)])
    assert cut(trimmed, Point(12)) is trimmed
    assert cut(trimmed, Point(10, 5, 50)) == wire.Trimmed(
        "0", [(1, 5), (8, 10)], [(0, 3), (4, 5)], 6, [("a", 0), ("b", 0)]
    )
    assert cut(trimmed, Point(1, 0, 50)) is None


def trimmed_parent(tmp_path: Path) -> ParentFacts:
    """Return a script that made calls 0 to 19, has blocks a and b, and whose calls 1 to 9 are trimmed."""
    journal = Journal.create(tmp_path / "trimmed", OLD)
    parts = wire.Calls("0", NOW, [part(call, 0, 2) for call in range(20)])
    journal.commit([
        Put(Table.DEFINE, PLAIN.fn, wire.encode(PLAIN)),
        *put(1, parts, *[b"x"] * 40),
        *[each for call in range(20) for each in put(2 + call, outcomes(call, 0, 2))],
        *put(30, checkpoint(1, 4, 0, name="a", base=0)), *put(31, checkpoint(2, 5, 0, name="a")),
        *put(32, checkpoint(6, 10, 0, name="b", entry=5)),
        *put(33, checkpoint(7, 12, 0, name="b", entry=5)),
        *put(34, wire.Trimmed("0", [(1, 4), (5, 10)], [], 16, [("a", 0), ("b", 0)])),
    ])  # fmt: skip
    state = read_state(journal, OLD)
    journal.close(clean=True)
    return state.parent("0")


def test_a_point_after_missing_results_is_refused(tmp_path: Path) -> None:
    parent = trimmed_parent(tmp_path)
    possible = [call for call in range(21) if check_point(parent, Point(call))]
    assert possible == [0, 1, 4, 5, *range(10, 21)]
    assert first_call(parent) == 10


def test_a_fork_at_a_checkpoint_knows_nothing_of_later_blocks(tmp_path: Path) -> None:
    trimmed_parent(tmp_path)
    with JournalView.open(tmp_path / "trimmed") as view:
        journal = Journal.create(tmp_path / "new", NEW)
        fork = Fork(view, NEW, Point(5, 0, 31))
        journal.commit(list(fork.changes()))
        state = read_state(journal, NEW)
        journal.close(clean=True)
    parent = state.parent("0")
    assert list(parent.blocks) == [("a", 0)]
    assert parent.trimmed_by == [("a", 0)]
    assert list(parent.dropped) == [(1, 4)]
    assert parent.next_call() == 5
    assert (fork.taken.calls, fork.taken.undone, fork.taken.checkpoints) == (5, 0, 2)


def test_a_nested_parent_is_kept_or_dropped_with_the_call_of_the_script_above_it() -> None:
    deep = wire.Calls("0.2[1].5[0]", NOW, [part(0, 0, 1)])
    assert cut(deep, Point(3)) is deep
    assert cut(deep, Point(2)) is None


def test_arguments_are_copied_with_their_parts() -> None:
    before = wire.Calls(ids.ROOT, NOW, [part(1, 0, 2), part(2, 0, 1), part(0, 5, 7)])
    after = cut(before, Point(2))
    assert isinstance(after, wire.Calls)
    args = wire.Args([b"a", b"b", b"c", b"d", b"e"])
    assert cut_args(before, after, args) == wire.Args([b"a", b"b", b"d", b"e"])


def put(seq: int, record: wire.Logged, *args: bytes) -> list[Change]:
    key = ids.log_prefix(OLD, record.parent) + seq.to_bytes(8, "big")
    puts: list[Change] = [Put(Table.LOG, key, wire.encode(record))]
    return puts + ([Put(Table.ARGS, key, wire.encode(wire.Args(list(args))))] if args else [])


@pytest.mark.parametrize(
    ("at", "shorter", "done", "known"),
    [(None, False, 5, 8), (2, False, 4, 4), (3, False, 5, 8), (None, True, 3, 7)],
)
def test_the_state_of_a_fork_equals_that_of_the_original_up_to_the_point(
    tmp_path: Path,
    at: int | None,
    shorter: bool,  # noqa: FBT001
    done: int,
    known: int,
) -> None:
    changes = [
        Put(Table.DEFINE, PLAIN.fn, wire.encode(PLAIN)),
        Put(Table.META, b"epoch", (7).to_bytes(4, "big")),
        *put(1, wire.Calls("0", NOW, [part(0, 0, 2), part(1, 0, 2)]), b"a", b"b", b"c", b"d"),
        *put(2, outcomes(0, 0, 2)),
        *put(3, outcomes(1, 0, 2)),
        *put(4, wire.Calls("0", NOW, [part(2, 0, 2)]), b"x", b"y"),
        *put(5, wire.Calls(NESTED, NOW, [part(0, 0, 2)]), b"p", b"q"),
        *put(6, outcomes(0, 1, 2, parent=NESTED)),
    ]
    if shorter:
        changes += put(7, wire.Calls("0", NOW, [part(1, 0, 1, salt=1, fresh=True)]), b"e")
    old = Journal.create(tmp_path / "old", OLD)
    old.commit(changes)
    old.close(clean=True)
    with JournalView.open(tmp_path / "old") as view:
        new = Journal.create(tmp_path / "new", NEW)
        fork = Fork(view, NEW, None if at is None else Point(at))
        new.commit(list(fork.changes()))
        state = read_state(new, NEW)
        epoch = new.get(Table.META, b"epoch")
        stored = [wire.decode_up(raw) for _, raw in new.scan(Table.ARGS)]
        new.close(clean=True)

    assert (state.items_done, state.items_known) == (done, known)
    assert (fork.taken.results, fork.taken.undone) == (done, known - done)
    assert (NESTED in state.parents) == (at != 2)
    assert epoch == (7).to_bytes(4, "big")
    args = [arg for frame in stored if isinstance(frame, wire.Args) for arg in frame.args]
    assert len(args) == known + 2 * shorter
