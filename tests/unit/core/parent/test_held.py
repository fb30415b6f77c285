"""Items that wait for the end of the history."""

from __future__ import annotations

from resilient_scoop.core.facts.intervals import Intervals
from resilient_scoop.core.parent.held import HeldItems, Items, with_fresh
from resilient_scoop.wire.messages import Part
from tests.unit.bench import FN, digests


def part(start: int, stop: int, *, call: int = 0, last: bool = True) -> Part:
    return Part(call, start, stop - start, FN, digests(*range(start, stop)), last)


def args(start: int, stop: int) -> list[bytes]:
    return [b"arg%d" % index for index in range(start, stop)]


def spans(items: list[Items]) -> list[tuple[int, int, bool]]:
    for piece, values in items:
        stop = piece.start + piece.count
        assert values == args(piece.start, stop)
        assert piece.digests == digests(*range(piece.start, stop))
    return [(piece.start, piece.start + piece.count, piece.last) for piece, _ in items]


def test_held_items_are_taken_once() -> None:
    held = HeldItems()
    held.hold(part(0, 2, last=False), args(0, 2))
    held.hold(part(2, 3), args(2, 3))

    assert held.calls() == [0]
    assert spans(held.take(0)) == [(0, 2, False), (2, 3, True)]
    assert held.take(0) == []


def test_settled_items_are_removed_from_held_ones() -> None:
    held = HeldItems()
    held.hold(part(0, 9), args(0, 9))

    held.settle(0, 2, 4)
    held.settle(0, 8, 9)

    assert held.others(0, 0, 9) == [(2, 4), (8, 9)]
    assert spans(held.take(0)) == [(0, 2, False), (4, 8, False)]


def test_a_call_whose_items_are_all_settled_holds_none() -> None:
    held = HeldItems()
    held.hold(part(0, 2), args(0, 2))
    assert held.has(0)

    held.settle(0, 0, 2)

    assert not held.has(0)
    assert held.others(0, 0, 2) == [(0, 2)]


def test_calls_are_sent_in_the_order_in_which_they_were_made() -> None:
    """The numbers of calls that are found by content have no order."""
    held = HeldItems()
    for call in (7, 1, 4):
        held.hold(part(0, 3, call=call), args(0, 3))

    held.settle(7, 0, 1)

    assert held.calls() == [7, 1, 4]


def test_calls_are_forgotten_one_by_one_or_all() -> None:
    held = HeldItems()
    for call in (3, 1, 2):
        held.hold(part(0, 1, call=call), args(0, 1))

    held.forget(1)
    assert held.calls() == [3, 2]
    held.clear()
    assert held.calls() == []


def test_items_that_are_requested_again_are_marked() -> None:
    pieces = with_fresh(part(0, 6), args(0, 6), Intervals([(1, 3)]))

    assert spans(pieces) == [(0, 1, False), (1, 3, False), (3, 6, True)]
    assert [piece.fresh for piece, _ in pieces] == [False, True, False]
    assert with_fresh(part(0, 1), args(0, 1), Intervals()) == [(part(0, 1), args(0, 1))]
