"""Moved results are found by function and arguments; random results are bound to their position."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from resilient_scoop.core.facts.intervals import Intervals
from resilient_scoop.core.parent.parent import Parent
from resilient_scoop.errors import BegunBeforeError
from resilient_scoop.ids import ROOT
from resilient_scoop.wire import messages as wire
from tests.unit.bench import FN, ORIGIN, W1, Bench, digests, sent

OTHER = b"fn-other........"
ATTEMPT = wire.Attempt(1, 1)


def outcome(call: int, args: Sequence[int], start: int = 0, **more: Any) -> wire.Outcome:
    """Return an outcome of items with these arguments; their values name them."""
    fields: dict[str, Any] = {"fingerprint": FN, "pure": True, "failed": [], **more}
    values = [b"V%d" % arg for arg in args]
    return wire.Outcome(call, start, digests=digests(*args), values=values, **fields)


def replay(calls: int = 9) -> tuple[Parent, list[str]]:
    """Return a parent that replays a history, and its reports."""
    notes: list[str] = []
    of = Parent(ROOT, ATTEMPT, replaying=True, tell_user=notes.append)
    of.history.known_calls = calls
    assert of.page_wanted() is not None
    return of, notes


def tell(of: Parent, *outcomes: wire.Outcome) -> None:
    """Give it the only page of its history."""
    head = wire.History(ROOT, ATTEMPT, 9, last=True, calls=of.history.known_calls, no=1)
    of.page(head, [wire.Outcomes(ROOT, [each]) for each in outcomes])


def ask(of: Parent, *args: int, fn: bytes = FN) -> int:
    made = of.begin(fn, fn)
    of.add(made, digests(*args), [b"%d" % arg for arg in args], last=True)
    return made.number


def found(of: Parent) -> dict[tuple[int, int], bytes]:
    """Return the moved results that the parent sends to the broker: (call, item) -> value."""
    messages = [wire.decode_up(frame) for frame in of.frames()]
    return {
        (item.call, item.start + at): value
        for message in messages
        if isinstance(message, wire.Outcomes)
        for item in message.items
        for at, value in enumerate(item.values)
    }


def test_a_value_added_at_the_front_of_a_sweep_keeps_the_results_of_the_others() -> None:
    of, notes = replay()
    ask(of, 0, 1, 2, 3)

    tell(of, outcome(0, [1, 2]), outcome(0, [3], 2))

    assert found(of) == {(0, 1): b"V1", (0, 2): b"V2", (0, 3): b"V3"}
    assert "3 results found by function and arguments" in notes[-1]


def test_a_call_added_before_others_keeps_their_results() -> None:
    of, _ = replay(calls=3)
    ask(of, 7, fn=OTHER)
    tell(of, outcome(0, [1, 2]), outcome(1, [3], fingerprint=OTHER), outcome(2, [4, 5]))

    for call in ([1, 2], [3], [4, 5]):
        ask(of, *call, fn=OTHER if call == [3] else FN)

    assert found(of) == {(1, 0): b"V1", (1, 1): b"V2", (2, 0): b"V3", (3, 0): b"V4", (3, 1): b"V5"}


def test_a_removed_call_keeps_the_results_of_later_ones() -> None:
    of, _ = replay(calls=3)
    ask(of, 4, 5)  # in place of the first of three calls
    tell(of, outcome(0, [1, 2]), outcome(1, [4, 5]), outcome(2, [6]))
    ask(of, 6)

    assert found(of) == {(0, 0): b"V4", (0, 1): b"V5", (1, 0): b"V6"}


def test_results_that_are_random_failed_or_uncompared_are_not_used_at_another_position() -> None:
    nothing = bytes(16)
    for each in (
        outcome(0, [1], pure=False),
        outcome(0, [1], failed=[0]),
        outcome(0, [1], fingerprint=OTHER),
        msgspec.structs.replace(outcome(0, [1]), digests=nothing),
    ):
        of, _ = replay()
        ask(of, 0, 1)
        tell(of, each)
        assert found(of) == {}
    of, _ = replay()
    made = of.begin(FN, FN)
    of.add(made, digests(5) + nothing, [b"5", b"?"], last=True)
    tell(of, msgspec.structs.replace(outcome(0, [1]), digests=nothing))
    assert found(of) == {}


def test_a_replay_without_a_difference_searches_for_nothing() -> None:
    of, notes = replay()
    ask(of, 1, 2, 3)

    tell(of, outcome(0, [1, 2]), outcome(1, [1]))

    assert found(of) == {}
    assert of.calls.moved.runs == []
    assert not notes
    assert of.calls.recovered == 2


def test_a_fork_finds_results_of_its_source_from_after_the_point() -> None:
    of, _ = replay(calls=0)
    ask(of, 0, 1)

    tell(of, outcome(-1, [1, 2]))

    assert found(of) == {(0, 1): b"V1"}


@pytest.mark.parametrize("where", ["in its place", "moved forward"])
def test_no_call_replaces_one_that_must_not_start_twice(where: str) -> None:
    # Given a replay that has other calls than the journal, one of them idempotent=False and done
    of, _ = replay(calls=2)
    paid = outcome(0 if where == "in its place" else 1, [7], pure=False, once=True)
    other = [] if where == "in its place" else [outcome(0, [5], pure=False)]
    ask(of, 7 if other else 8)

    # Then the replay is refused, with the name of the call, and stays refused
    with pytest.raises(BegunBeforeError, match="idempotent=False and was started"):
        tell(of, *other, paid)
    assert of.judge.refusal is not None
    assert not [m for m in map(wire.decode_up, of.frames()) if isinstance(m, wire.Calls)]


def test_a_call_that_must_not_start_twice_is_repeated_if_the_user_has_allowed_it() -> None:
    of, _ = replay(calls=1)
    of.judge.policy.recompute = ("*",)
    ask(of, 8)

    tell(of, outcome(0, [7], pure=False, once=True))

    assert of.judge.refusal is None


def test_the_broker_counts_found_results_and_confirms_them_after_the_commit() -> None:
    # Given a script that makes a call whose results it has found at another position
    bench = Bench()
    root = bench.begin(W1)
    of = Parent(ROOT, root, replaying=True)
    of.history.known_calls = 1
    of.page_wanted()
    ask(of, 0, 1, 2)
    head = wire.History(ROOT, root, 9, last=True, calls=1, no=1)
    of.page(head, [wire.Outcomes(ROOT, [outcome(0, [1, 2])])])

    messages = [wire.decode_up(frame) for frame in of.frames()]
    actions = bench.tell(ORIGIN, *messages)

    # Then only the new item has to run, and the other results are sent
    assert bench.broker.state.parents[ROOT].batches[0].undone == Intervals([(0, 1)])
    for found in sent(actions, ORIGIN, wire.Outcomes):
        of.outcomes(found)
    call = of.calls.open[0]
    assert list(call.left) == [(0, 1)]
    assert [value for chunk in call.chunks for value in chunk.values] == [b"V1", b"V2"]
    # And they count as taken from the journal, until the parent makes another call at this position
    assert bench.broker.ledger.reused.count == 2
    bench.broker.ledger.reused.lose(ROOT, 0, [(1, 2)], Intervals([(2, 3)]))
    assert bench.broker.ledger.reused.count == 1


def test_a_long_sweep_that_is_shifted_is_replayed_in_linear_time() -> None:
    count = 30_000
    of, _ = replay()
    ask(of, *range(count))

    tell(of, *(outcome(0, [at + 1], at) for at in range(count - 1)))

    assert len(found(of)) == count - 1
