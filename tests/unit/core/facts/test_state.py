"""The durable state: a fold over records, the same live and in recovery."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from resilient_scoop.core.events import Table
from resilient_scoop.core.facts.batch import Batch
from resilient_scoop.core.facts.fold import apply
from resilient_scoop.core.facts.intervals import Intervals
from resilient_scoop.core.facts.recovery import forget_undone, forget_without_args, recover
from resilient_scoop.core.facts.state import DurableState
from resilient_scoop.ids import ROOT, item_path
from resilient_scoop.wire import messages as wire
from tests.unit.bench import FN, ORIGIN, PLAIN, RUN, W1, Bench, calls, granted, outcomes, part


def put(state: DurableState, each: wire.Part, record: int = 1) -> list[tuple[int, int]]:
    args = [b"x" * 10] * each.count
    found = apply(state, wire.Calls(ROOT, wire.Attempt(1, 1), [each]), record, args).parts
    return [span for part in found for span in (part.batch.undone if part.is_whole else part.new)]


def end(state: DurableState, *spans: tuple[int, int], salt: int = 0) -> None:
    for low, high in spans:
        apply(state, outcomes(0, low, high, salt=salt), state.seq + 1)


def batch(state: DurableState, call: int = 0) -> Batch:
    return state.parent(ROOT).batches[call]


def test_a_known_part_changes_nothing() -> None:
    state = DurableState(RUN)

    assert put(state, part(0, 0, 5)) == [(0, 5)]
    assert put(state, part(0, 0, 5)) == []
    assert state.items_known == 5


def test_a_part_with_other_arguments_replaces_items_that_are_not_done() -> None:
    # Given a batch of five items, one of them done
    state = DurableState(RUN)
    put(state, part(0, 0, 5))
    end(state, (0, 1))

    # When the parent comes back with others
    assert put(state, part(0, 0, 5, salt=1), record=2) == [(1, 5)]

    # Then outcomes of the old items do not count any more, and those of the new ones count
    end(state, (1, 3))
    assert list(batch(state).done) == [(0, 1)]
    end(state, (1, 3), salt=1)
    assert list(batch(state).done) == [(0, 3)]
    assert state.items_known == 5


def test_a_fresh_part_replaces_finished_items() -> None:
    state = DurableState(RUN)
    put(state, part(0, 0, 2))
    end(state, (0, 2))
    assert 0 in state.parent(ROOT).finished

    assert put(state, part(0, 1, 2, salt=1, fresh=True), record=2) == [(1, 2)]

    assert list(batch(state).done) == [(0, 1)]
    end(state, (1, 2), salt=1)
    assert state.parent(ROOT).batches == {}


def test_a_finished_map_that_a_changed_script_makes_longer_is_opened_again() -> None:
    state = DurableState(RUN)
    put(state, part(0, 0, 3))
    end(state, (0, 3))

    assert put(state, part(0, 0, 5), record=2) == [(3, 5)]


def test_a_map_that_a_changed_script_makes_shorter_is_truncated() -> None:
    state = DurableState(RUN)
    put(state, part(0, 0, 5))

    assert put(state, part(0, 0, 2), record=2) == []

    assert list(batch(state).undone) == [(0, 2)]
    assert state.items_known == 2


def test_a_finished_batch_keeps_neither_items_nor_arguments() -> None:
    state = DurableState(RUN)
    put(state, part(0, 0, 1000))
    assert state.args_bytes > 0

    end(state, (0, 500), (500, 1000))

    parent = state.parent(ROOT)
    assert (parent.batches, list(parent.finished), state.args_bytes) == ({}, [(0, 1)], 0)


def test_replaced_or_dropped_arguments_are_not_counted_any_more() -> None:
    state = DurableState(RUN)
    put(state, part(0, 0, 4))
    once = state.args_bytes
    put(state, part(0, 1, 3, salt=2, last=False), record=2)
    assert state.args_bytes == once

    path = item_path(ROOT, 0, 0)
    apply(state, wire.Calls(path, wire.Attempt(1, 2), [part(0, 0, 3)]), 3, [b"x"] * 3)
    state.drop(path)
    assert state.args_bytes == once


def test_a_dropped_parent_is_dropped_with_its_descendants() -> None:
    state = DurableState(RUN)
    put(state, part(0, 0, 1))
    child, grandchild = item_path(ROOT, 0, 0), item_path(item_path(ROOT, 0, 0), 0, 0)
    prefixes = {state.parent(child).prefix, state.parent(grandchild).prefix}

    assert set(state.drop(child)) == prefixes
    assert list(state.parents) == [ROOT]
    assert (state.kids, state.kid_items) == ({}, {})


def test_deaths_count_for_the_arguments_that_caused_them_only() -> None:
    state = DurableState(RUN)
    parent = state.parent(ROOT)

    def crashed(digest: bytes) -> int:
        apply(state, wire.Crashed(ROOT, 0, 0, -11, "crash", digest), 1)
        return len(parent.crashes[0, 0])

    assert [crashed(b"1"), crashed(b"1"), crashed(b"2")] == [1, 2, 1]


def test_a_map_without_items_is_finished_at_once() -> None:
    state = DurableState(RUN)

    assert put(state, part(0, 0, 0)) == []
    assert list(state.parent(ROOT).finished) == [(0, 1)]


edits = st.lists(
    st.one_of(
        st.tuples(st.just("calls"), st.integers(0, 3), st.integers(0, 6), st.integers(0, 1)),
        st.tuples(st.just("fresh"), st.integers(0, 3), st.integers(0, 5), st.integers(0, 1)),
        st.tuples(st.just("done"), st.integers(0, 3), st.integers(0, 5), st.integers(0, 1)),
        st.tuples(st.just("lost"), st.just(0), st.just(0), st.just(0)),
    ),
    max_size=20,
)


@settings(max_examples=200, deadline=None)
@given(edits)
def test_the_recovered_state_equals_the_live_one(steps: list[tuple[str, int, int, int]]) -> None:
    # Given a broker with records of every kind
    bench = Bench()
    root = bench.begin(W1)
    for kind, call, size, salt in steps:
        if kind == "calls":
            asked = part(call, 0, size, salt=salt)
            bench.tell(ORIGIN, PLAIN, *calls(asked, attempt=root))
        elif kind == "fresh":
            asked = part(call, size, size + 1, salt=salt, last=False, fresh=True)
            bench.tell(ORIGIN, PLAIN, *calls(asked, attempt=root))
        elif kind == "done":
            bench.tell(W1, outcomes(call, size, size + 1, salt=salt))
        else:
            bench.arrive(W1)

    # When a new broker reads its records
    theirs = bench.again().broker.state
    ours = bench.broker.state

    # Then both states are equal
    mine, found = ours.parent(ROOT), theirs.parent(ROOT)
    assert list(found.finished) == list(mine.finished)
    assert found.sizes == mine.sizes
    assert found.args_left == mine.args_left
    assert found.batches.keys() == mine.batches.keys()
    for number, old in mine.batches.items():
        new = found.batches[number]
        assert (list(new.undone), list(new.done), new.last) == (
            list(old.undone), list(old.done), old.last,
        )  # fmt: skip
        for piece in old.pieces:
            if old.undone.overlap(piece.start, piece.stop):
                key = mine.prefix + piece.record.to_bytes(8, "big")
                assert (Table.ARGS, key) in bench.journal
        for low, high in old.undone:
            for index in range(low, high):
                assert new.digests_of(index, index + 1) == old.digests_of(index, index + 1)
    assert theirs.seq <= ours.seq


def test_arguments_are_erased_with_the_last_outcome_of_their_record() -> None:
    # Given one record with a batch of two and a batch of one
    bench = Bench()
    root = bench.begin(W1)
    (sent,) = granted(
        bench.tell(ORIGIN, PLAIN, *calls(part(0, 0, 2), part(1, 0, 1), attempt=root)), W1
    )[:1]

    # When all but one are done, the arguments are kept; with the last one they are erased
    bench.tell(W1, outcomes(0, 0, 1))
    bench.tell(W1, outcomes(1, 0, 1))
    assert [key for table, key in bench.journal if table is Table.ARGS]
    bench.tell(W1, outcomes(0, 1, 2))
    assert not [key for table, key in bench.journal if table is Table.ARGS]
    assert bench.broker.state.parent(ROOT).args_left == {}
    assert sent.call == 0


def test_arguments_of_failed_items_are_kept_for_another_try() -> None:
    bench = Bench()
    root = bench.begin(W1)
    bench.tell(ORIGIN, PLAIN, *calls(part(0, 0, 2), attempt=root))
    failed = outcomes(0, 0, 1)
    item = structs.replace(failed.items[0], failed=[0])
    bench.tell(W1, wire.Outcomes(ROOT, [item]))
    bench.tell(W1, outcomes(0, 1, 2))
    assert [key for table, key in bench.journal if table is Table.ARGS]
    assert bench.broker.state.parent(ROOT).args_left == {}


def test_items_whose_arguments_are_missing_are_forgotten_so_that_they_are_made_again() -> None:
    state = DurableState(RUN)
    put(state, part(0, 0, 3))
    put(state, part(1, 0, 2), record=2)
    missing = state.parent(ROOT).prefix + (2).to_bytes(8, "big")

    assert forget_without_args(state, lambda key: key != missing) == 2
    assert list(batch(state, 0).undone) == [(0, 3)]
    assert not batch(state, 1).undone
    assert put(state, part(1, 0, 2), record=3) == [(0, 2)]


def test_undone_items_are_forgotten_except_those_that_are_not_made_again() -> None:
    # Given calls of which one has a result, and one must not be started twice and has begun
    state = DurableState(RUN)
    put(state, part(0, 0, 3))
    put(state, part(1, 0, 2), record=2)
    apply(state, outcomes(0, 0, 1), 3)
    state.parent(ROOT).intents[1] = Intervals([(0, 1)])

    assert forget_undone(state) == 3
    assert list(batch(state, 0).done) == [(0, 1)]
    assert not batch(state, 0).undone
    assert list(batch(state, 1).undone) == [(0, 1)]
    assert put(state, part(0, 1, 3), record=4) == [(1, 3)]


def test_a_parent_that_was_done_is_dropped_after_a_lost_erasure() -> None:
    # Given records of a child whose erasure was lost
    state = DurableState(RUN)
    key = state.parent(item_path(ROOT, 0, 0)).prefix
    log: list[tuple[bytes, wire.Logged]] = [
        (
            key + bytes(7) + b"\x02",
            wire.Calls(item_path(ROOT, 0, 0), wire.Attempt(1, 1), [part(0, 0, 1)]),
        )
    ]

    recovered = recover(RUN, [PLAIN], log, 0)

    assert list(recovered.parents) in ([], [ROOT])
    assert FN in recovered.defines
