"""Open blocks and their generations, tested without the parent."""

from __future__ import annotations

import pytest

from resilient_scoop.core.parent.durable import Durable
from resilient_scoop.ids import ROOT
from resilient_scoop.wire import messages as wire
from resilient_scoop.wire.checkpoints import Mark

NOW = wire.Attempt(2, 1)


def generation(gen: int, *, name: str = "main", opening: int = 0) -> wire.Checkpoint:
    return wire.Checkpoint(
        ROOT, NOW, name, opening, gen, 0, 0, 0, 4, 2, b"state", [], [], {name: 1}
    )


def test_a_block_is_identified_by_its_name_and_the_number_of_its_opening() -> None:
    durable = Durable()
    first = durable.enter("main", 0, 0)
    inner = durable.enter("inner", 1, 0)
    durable.leave(first)
    second = durable.enter("main", 5, 3)

    assert (first.key, inner.key, second.key) == (("main", 0), ("inner", 0), ("main", 1))
    assert inner.outer == [("main", 0)]
    assert (second.entry, second.entry_observation) == (5, 3)


def test_leaving_a_block_closes_blocks_left_open_inside() -> None:
    durable = Durable()
    outer = durable.enter("main", 0, 0)
    inner = durable.enter("inner", 0, 0)

    durable.leave(outer)
    durable.leave(inner)

    assert durable.open == []
    assert not durable.is_open("inner")


def test_a_generation_of_a_block_around_another_is_refused() -> None:
    durable = Durable()
    outer = durable.enter("main", 0, 0)
    durable.enter("inner", 0, 0)

    with pytest.raises(AssertionError, match="D2"):
        durable.begin_generation(outer)


def test_generations_are_numbered_after_the_durable_ones() -> None:
    durable = Durable()
    block = durable.enter("main", 0, 0)
    durable.note("main", 0, 4)

    assert durable.begin_generation(block) == 5
    assert not durable.is_saved(block)
    durable.note("main", 0, 5)
    assert durable.is_saved(block)

    durable.verified(block)
    assert (block.base, block.saved) == (5, 1)


def test_the_newest_generation_is_awaited() -> None:
    durable = Durable()
    block = durable.enter("main", 0, 0)
    assert not durable.has_newest(block)

    head = wire.History(ROOT, NOW, 1, last=False, calls=0, checkpoints=[Mark("main", 0, 2)])
    durable.page(head)
    durable.take(generation(1))
    assert not durable.has_newest(block)

    durable.take(generation(2))
    durable.take(generation(2))
    assert durable.has_newest(block)
    assert [each.gen for each in durable.candidates(block)] == [2, 1]


def test_a_block_that_has_trimmed_its_history_cannot_begin_again() -> None:
    durable = Durable()
    block = durable.enter("main", 0, 0)
    assert durable.can_begin(block)

    head = wire.History(
        ROOT, NOW, 1, last=True, calls=9, dropped=[(0, 3)], trimmed_by=[("main", 0)]
    )
    durable.page(head)

    assert not durable.can_begin(block)
    assert list(durable.dropped) == [(0, 3)]


def test_continuing_restores_the_number_of_openings_per_name() -> None:
    durable = Durable()
    block = durable.enter("main", 0, 0)
    durable.enter("inner", 0, 0)
    durable.take(generation(3))

    durable.continue_from(block, generation(3))

    assert (block.base, block.gen, durable.openings) == (3, 3, {"main": 1})
    assert durable.candidates(block) == []
