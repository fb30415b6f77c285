"""The fold over LOG: which records are new, and that the recovered state equals the live one."""

from __future__ import annotations

import random
from typing import Any

import pytest

from resilient_scoop.core.facts.fold import apply
from resilient_scoop.core.facts.parent import ParentFacts
from resilient_scoop.core.facts.state import DurableState
from resilient_scoop.ids import ROOT, SHARED
from resilient_scoop.wire import messages as wire
from tests.sim.durable_part import durable_part
from tests.unit.bench import (
    FN,
    ONCE,
    ORIGIN,
    PLAIN,
    RISKY,
    RUN,
    W1,
    Bench,
    calls,
    digests,
    granted,
    outcomes,
    part,
)

FIRST = wire.Attempt(1, 1)
OBSERVED = wire.Observed(ROOT, FIRST, [wire.Observation(0, "done", 0, b"")])


def asked(*parts: wire.Part, attempt: wire.Attempt = FIRST) -> wire.Calls:
    return wire.Calls(ROOT, attempt, list(parts))


def test_apply_reports_a_first_record_as_new_and_its_repetition_not() -> None:
    state = DurableState(RUN)
    for record in (asked(part(0, 0, 3)), OBSERVED, outcomes(0, 0, 3)):
        assert apply(state, record, 1).is_new, record
        before = durable_part(state)

        assert not apply(state, record, 2).is_new, record
        assert durable_part(state) == before


def test_apply_keeps_the_writer_of_the_last_new_record() -> None:
    state = DurableState(RUN)
    later = wire.Attempt(1, 2)
    apply(state, asked(part(0, 0, 3)), 1)

    apply(state, asked(part(0, 0, 3), attempt=later), 2)
    assert state.parent(ROOT).writer == FIRST

    apply(state, asked(part(1, 0, 3), attempt=later), 2)
    assert state.parent(ROOT).writer == later


def test_apply_counts_an_item_once_when_a_record_has_two_outcomes_of_it() -> None:
    state = DurableState(RUN)
    apply(state, asked(part(0, 0, 3)), 1)
    first, again = outcomes(0, 0, 2).items, outcomes(0, 1, 3).items

    change = apply(state, wire.Outcomes(ROOT, [*first, *again]), 2)

    assert [each.spans for each in change.counted] == [[(0, 2)], [(2, 3)]]
    assert (state.items_done, list(state.parent(ROOT).finished)) == (3, [(0, 1)])


def test_apply_reports_what_a_changed_call_replaces_and_which_results_it_loses() -> None:
    state = DurableState(RUN)
    apply(state, asked(part(0, 0, 6)), 1)
    apply(state, outcomes(0, 4, 6), 2)

    (change,) = apply(state, asked(part(0, 0, 5, salt=1)), 3).parts

    assert change.replaced == [(0, 4)]
    assert change.new == [(0, 4)]
    assert change.lost == [(5, 6)]


def test_apply_names_the_arguments_that_are_not_needed_any_more() -> None:
    state = DurableState(RUN)
    apply(state, asked(part(0, 0, 2), part(1, 0, 1)), 7)

    assert apply(state, outcomes(0, 0, 2), 8).spent == []
    assert apply(state, outcomes(1, 0, 1), 9).spent == [
        state.parent(ROOT).prefix + (7).to_bytes(8, "big")
    ]


def test_recovery_gives_the_live_state_when_a_begun_item_is_replaced() -> None:
    # Given an item that must not be started twice, and has begun
    bench = Bench()
    root = bench.begin(W1)
    actions = bench.tell(ORIGIN, RISKY, *calls(part(0, 0, 1, fn=ONCE), attempt=root))
    (task,) = granted(actions, W1)
    bench.tell(W1, wire.BeginWanted(wire.Attempt(1, task.no), 0))

    # When its parent makes another call in its place
    bench.tell(ORIGIN, *calls(part(0, 0, 1, fn=ONCE, salt=1), attempt=root))

    # Then that call has ended as lost, also for a new broker: no worker starts it
    assert bench.broker.state.items_done == 1
    again = bench.again(adopt=False)
    assert durable_part(again.broker.state) == durable_part(bench.broker.state)
    assert again.broker.scheduler.ready == 0


def test_recovery_gives_the_live_state_when_a_batch_with_gaps_is_asked_for_again_shorter() -> None:
    # Given a batch that was given up with its first and last item done
    bench = Bench()
    root = bench.begin()
    bench.tell(ORIGIN, PLAIN, *calls(part(0, 0, 3), attempt=root))
    bench.tell(W1, outcomes(0, 0, 1), outcomes(0, 2, 3))  # its last messages
    bench.tell(ORIGIN, wire.Abandon(ROOT, root, [0]))
    assert list(bench.broker.state.parent(ROOT).partial) == [0]

    # When the parent makes the call again with the first item only
    bench.tell(ORIGIN, *calls(part(0, 0, 1), attempt=root))

    assert durable_part(bench.again().broker.state) == durable_part(bench.broker.state)


def test_a_shorter_call_drops_the_arguments_of_the_items_that_it_lacks() -> None:
    # Given a state that has trimmed a call, and a recovered one: these records were deleted
    live, recovered = DurableState(RUN), DurableState(RUN)
    for state in (live, recovered):
        apply(state, asked(part(3, 0, 2), part(4, 0, 2)), 1)
    for outcome in (outcomes(4, 0, 1), outcomes(4, 1, 2)):
        apply(live, outcome, 2)
    apply(live, wire.Trimmed(ROOT, [(4, 5)], [], 2, []), 3)

    # When a changed script makes the call with one item and another function
    spent = [
        apply(state, asked(part(4, 0, 1, salt=1), attempt=wire.Attempt(2, 1)), 5).spent
        for state in (live, recovered)
    ]

    # Then both hold the arguments of this item only
    for state in (live, recovered):
        batch = state.parent(ROOT).batches[4]
        assert [(piece.record, piece.start, piece.stop) for piece in batch.pieces] == [(5, 0, 1)]
        assert list(batch.undone) == [(0, 1)]
    assert spent == [[], []], "call 3 needs the other record"


@pytest.mark.parametrize(
    "record",
    [
        wire.Crashed(ROOT, 0, 1, -9, "crash", digests(1)),
        wire.Intent(ROOT, 0, 1, 1, digests(1)),
        wire.Abandoned(ROOT, 0, [(1, 2)]),
        wire.Trimmed(ROOT, [(0, 1)], [], 3, []),
        OBSERVED,
        outcomes(0, 1, 2),
    ],
    ids=lambda record: type(record).__name__,
)
def test_durable_part_differs_for_states_that_differ_by_one_record(record: Any) -> None:
    with_it, without = DurableState(RUN), DurableState(RUN)
    for state in (with_it, without):
        state.defines[FN] = PLAIN
        apply(state, asked(part(0, 0, 3)), 1)

    apply(with_it, record, 2)

    assert durable_part(with_it) != durable_part(without)


@pytest.mark.parametrize("seed", range(20))
def test_the_fast_path_handles_unordered_calls_like_the_general_path(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = random.Random(seed)
    records: list[Any] = []
    for number in rng.sample(range(1 << 52), 30):
        part_ = wire.Part(number, 0, 1, FN, digests(0), last=True)
        records.append(wire.Calls(SHARED, FIRST, [part_]))
        if rng.random() < 0.5:
            records.append(records[rng.randrange(len(records))])  # sent twice
        if rng.random() < 0.6:
            done = [outcomes(each.parts[0].call, 0, 1).items[0] for each in _calls_in(records)]
            records.append(wire.Outcomes(SHARED, [rng.choice(done)]))
    short, long_ = DurableState(RUN), DurableState(RUN)
    changes = [apply(short, record, seq) for seq, record in enumerate(records, 1)]

    monkeypatch.setattr(ParentFacts, "begins", lambda *_: False)
    for seq, (record, change) in enumerate(zip(records, changes, strict=True), 1):
        assert apply(long_, record, seq).is_new == change.is_new, record

    assert durable_part(short) == durable_part(long_)
    assert any(part.is_whole for change in changes[15:] for part in change.parts)


def _calls_in(records: list[Any]) -> list[wire.Calls]:
    return [record for record in records if isinstance(record, wire.Calls)]
