"""Forks: what of a journal lies before a call of the script, and under which keys it stands then."""

from __future__ import annotations

from pathlib import Path

import pytest

from resilient_scoop import ids
from resilient_scoop.adapters.journal import Journal
from resilient_scoop.adapters.journal_view import JournalView
from resilient_scoop.core.events import Change, Put, Table
from resilient_scoop.runtime.forking import Fork, Point, check_point, cut, cut_args, first_call, parse_batch
from resilient_scoop.runtime.replays import read_state
from resilient_scoop.wire import messages as wire
from tests.unit.bench import PLAIN, outcomes, part

OLD, NEW = b"o" * 16, b"n" * 16
NOW = wire.Attempt(3, 1)
NESTED = "0.2[1]"


def test_a_call_of_the_script_is_named_as_status_shows_it() -> None:
    assert [parse_batch(text) for text in ("0.17", "17", "0.3[1].2", "x", "", "0")] == [
        17, 17, None, None, None, 0,
    ]  # fmt: skip


def test_what_lies_before_a_call_is_kept() -> None:
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


def test_answers_are_kept_up_to_the_making_of_the_call() -> None:
    told = [wire.Observation(no, "once", at, b"") for no, at in enumerate((1, 2, 2, 3))]
    kept = cut(wire.Observed(ids.ROOT, NOW, told), Point(2))
    assert kept == wire.Observed(ids.ROOT, NOW, told[:3])
    assert cut(wire.Observed(ids.ROOT, NOW, told[3:]), Point(2)) is None


def test_a_nested_parent_goes_with_the_call_of_the_script_it_descends_from() -> None:
    deep = wire.Calls("0.2[1].5[0]", NOW, [part(0, 0, 1)])
    assert cut(deep, Point(3)) is deep
    assert cut(deep, Point(2)) is None


def test_arguments_follow_their_parts() -> None:
    before = wire.Calls(ids.ROOT, NOW, [part(1, 0, 2), part(2, 0, 1), part(0, 5, 7)])
    after = cut(before, Point(2))
    assert isinstance(after, wire.Calls)
    args = wire.Args([b"a", b"b", b"c", b"d", b"e"])
    assert cut_args(before, after, args) == wire.Args([b"a", b"b", b"d", b"e"])


def put(seq: int, record: wire.Logged, *args: bytes) -> list[Change]:
    key = ids.log_prefix(OLD, record.parent) + seq.to_bytes(8, "big")
    puts: list[Change] = [Put(Table.LOG, key, wire.encode(record))]
    return puts + ([Put(Table.ARGS, key, wire.encode(wire.Args(list(args))))] if args else [])


@pytest.mark.parametrize(("at", "done", "known"), [(None, 5, 8), (2, 4, 4), (3, 5, 8)])
def test_a_fork_s_state_is_that_of_the_original_up_to_there(
    tmp_path: Path, at: int | None, done: int, known: int
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
    assert len(args) == known
