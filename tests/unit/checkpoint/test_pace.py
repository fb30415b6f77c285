"""The interval between commits, and the random streams that a future has obtained."""

from __future__ import annotations

import math
from typing import Literal

import pytest

from resilient_scoop.checkpoint._pace import FAILURE_S, Pace
from resilient_scoop.errors import UsageError
from resilient_scoop.task_state.rng import StreamBook


def seed(mark: str) -> int:
    return hash(mark) & 0xFFFF


def test_the_first_commit_is_always_due() -> None:
    kinds: list[float | Literal["auto"] | None] = [None, 0.0, 3600.0, "auto"]
    for every_s in kinds:
        assert Pace().is_due(every_s, 0.0)


def test_commits_are_skipped_until_their_interval_has_passed() -> None:
    pace = Pace()
    pace.wrote(10.0, 11.0)
    assert pace.is_due(None, 11.1)
    assert not pace.is_due(5.0, 15.9)
    assert pace.is_due(5.0, 16.0)


@pytest.mark.parametrize("cost_s", [0.0005, 0.01, 1.0, 60.0, 600.0])
def test_the_automatic_interval_follows_young_and_costs_at_most_one_percent(cost_s: float) -> None:
    pace = Pace()
    pace.wrote(0.0, cost_s)
    interval_s = pace.interval_s()
    assert cost_s / interval_s <= 0.01 + 1e-9
    assert math.isclose(interval_s, max(math.sqrt(2 * cost_s * FAILURE_S), 100 * cost_s))
    assert not pace.is_due("auto", cost_s + 0.99 * interval_s)
    assert pace.is_due("auto", cost_s + 1.01 * interval_s)


@pytest.mark.parametrize("wrong", [-1, math.nan, "often"])
def test_an_invalid_commit_interval_is_refused(wrong: object) -> None:
    with pytest.raises(UsageError, match="must be a number of seconds"):
        Pace().is_due(wrong, 0.0)  # type: ignore[arg-type]


def test_streams_of_the_same_name_are_the_same_stream() -> None:
    book = StreamBook()
    assert book.obtain("a", seed) is book.obtain("a", seed)
    assert book.obtain(None, seed) is not book.obtain(None, seed)


def test_streams_continue_where_they_were_saved() -> None:
    # Given a named stream, one without a name, and one that is no longer referenced
    book = StreamBook()
    named, first = book.obtain("a", seed), book.obtain(None, seed)
    book.obtain(None, seed)
    named.random(), first.random()
    saved = book.save()
    expected = [named.random(), first.random()]

    # When another process obtains the one without a name, restores, and obtains the other later
    other = StreamBook()
    again = other.obtain(None, seed)
    other.restore(saved)

    assert [other.obtain("a", seed).random(), again.random()] == expected
    assert other.count == 2
    assert other.save()[1].keys() == {"a"}


def test_streams_that_are_not_obtained_again_are_still_saved() -> None:
    book = StreamBook()
    book.obtain("a", seed).random()
    other = StreamBook()
    other.restore(book.save())
    assert other.save()[1] == book.save()[1]
