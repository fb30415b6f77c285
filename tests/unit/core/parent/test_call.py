"""One batch of a parent, and the outcomes that settle its items."""

from __future__ import annotations

import pytest

from resilient_scoop.core.parent.call import Call, OutcomeChunk
from resilient_scoop.wire import messages as wire
from tests.unit.bench import FN, digests


def chunk(start: int, stop: int, *failed: int) -> OutcomeChunk:
    values = [b"Vvalue%d" % index for index in range(start, stop)]
    return OutcomeChunk(start, stop, values, frozenset(failed), 0)


def settled(*chunks: OutcomeChunk) -> Call:
    call = Call(0, FN, FN)
    for each in chunks:
        call.put(each)
    return call


def test_a_part_of_an_outcome_has_the_values_and_failures_of_its_items() -> None:
    values = [b"Va", b"Vb", b"Vc"]
    outcome = wire.Outcome(0, 5, FN, digests(5, 6, 7), values, [0, 2], 0.0)
    found = OutcomeChunk.of(outcome, 6, 8, arrival=1)
    assert (found.start, found.stop, found.values) == (6, 8, [b"Vb", b"Vc"])
    assert found.failed == {7}
    assert OutcomeChunk.of(outcome, 5, 8, arrival=1).values is values, "it is not copied"


def test_an_item_is_found_in_its_part_whatever_the_order_of_arrival() -> None:
    call = settled(chunk(4, 6), chunk(0, 2), chunk(8, 9))
    assert [each.start for each in call.chunks] == [0, 4, 8]
    found = {index: call.find(index) for index in range(10)}
    assert {index for index, each in found.items() if each is not None} == {0, 1, 4, 5, 8}
    assert found[5] is call.chunks[1]


@pytest.mark.parametrize(
    ("start", "stop", "left"),
    [
        (0, 6, []),
        (1, 5, [(0, 1), (5, 6)]),
        (0, 3, [(3, 6)]),
        (3, 6, [(0, 3)]),
        (2, 4, [(0, 2), (4, 6)]),
    ],
)
def test_an_item_taken_from_a_call_is_removed_and_the_others_stay(
    start: int, stop: int, left: list[tuple[int, int]]
) -> None:
    call = settled(chunk(0, 3, 1), chunk(3, 6, 5))

    taken = call.take(start, stop)

    assert [value for each in taken for value in each.values] == chunk(start, stop).values
    assert {i for each in taken for i in each.failed} == {1, 5} & set(range(start, stop))
    rest: list[tuple[int, int]] = []
    for each in call.chunks:
        if rest and rest[-1][1] == each.start:
            rest[-1] = (rest[-1][0], each.stop)
        else:
            rest.append((each.start, each.stop))
    assert rest == left
    assert {i for each in call.chunks for i in each.failed} == {1, 5} - set(range(start, stop))
