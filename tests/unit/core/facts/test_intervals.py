"""Intervals against a plain set of numbers."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resilient_scoop.core.facts.intervals import Intervals

NUMBERS = range(40)
bounds = st.tuples(st.integers(0, 30), st.integers(0, 30))
changes = st.lists(st.tuples(st.booleans(), bounds), max_size=25)


def made(edits: list[tuple[bool, tuple[int, int]]]) -> tuple[Intervals, set[int]]:
    """Apply the same additions and removals to both."""
    intervals, numbers = Intervals(), set[int]()
    for added, (start, stop) in edits:
        if added:
            intervals.add(start, stop)
            numbers |= set(range(start, stop))
        else:
            intervals.discard(start, stop)
            numbers -= set(range(start, stop))
    return intervals, numbers


def flat(spans: object) -> list[int]:
    return [n for start, stop in spans for n in range(start, stop)]  # type: ignore[attr-defined]


@settings(max_examples=300, deadline=None)
@given(changes)
def test_intervals_contain_the_same_numbers_as_a_set(
    edits: list[tuple[bool, tuple[int, int]]],
) -> None:
    intervals, numbers = made(edits)

    assert flat(intervals) == sorted(numbers)
    assert [n in intervals for n in NUMBERS] == [n in numbers for n in NUMBERS]
    assert intervals.count() == len(numbers)
    assert bool(intervals) == bool(numbers)


@settings(max_examples=300, deadline=None)
@given(changes)
def test_runs_of_intervals_are_sorted_and_do_not_touch(
    edits: list[tuple[bool, tuple[int, int]]],
) -> None:
    intervals, _ = made(edits)

    ends = [end for span in intervals for end in span]
    assert ends == sorted(set(ends))


@settings(max_examples=300, deadline=None)
@given(changes, bounds)
def test_questions_about_a_range_have_the_same_answers_as_for_a_set(
    edits: list[tuple[bool, tuple[int, int]]], asked: tuple[int, int]
) -> None:
    intervals, numbers = made(edits)
    wanted = set(range(*asked))

    assert flat(intervals.overlap(*asked)) == sorted(numbers & wanted)
    assert flat(intervals.gaps(*asked)) == sorted(wanted - numbers)
    assert intervals.covers(*asked) == (wanted <= numbers)


@settings(max_examples=100, deadline=None)
@given(changes)
def test_the_order_of_insertions_does_not_matter(edits: list[tuple[bool, tuple[int, int]]]) -> None:
    intervals, numbers = made(edits)

    assert intervals == Intervals((n, n + 1) for n in sorted(numbers, reverse=True))


@settings(max_examples=100, deadline=None)
@given(changes, st.integers(1, 5))
def test_the_first_run_is_cut_to_the_requested_length(
    edits: list[tuple[bool, tuple[int, int]]], count: int
) -> None:
    intervals, numbers = made(edits)
    if not numbers:
        with pytest.raises(IndexError):
            intervals.first(count)
        return

    start, stop = intervals.first(count)
    assert start == min(numbers)
    assert set(range(start, stop)) <= numbers
    assert 0 < stop - start <= count
    assert intervals.end_of(start) >= stop


def test_a_million_neighbors_are_one_run() -> None:
    intervals = Intervals()
    for number in range(0, 1_000_000, 1000):
        intervals.add(number, number + 1000)

    assert list(intervals) == [(0, 1_000_000)]
