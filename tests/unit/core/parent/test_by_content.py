"""Calls that a replay finds by their content."""

from __future__ import annotations

from resilient_scoop import ids
from resilient_scoop.core.parent.by_content import ByContent
from resilient_scoop.core.parent.history import HistoryRecord
from resilient_scoop.core.parent.parent import Parent
from resilient_scoop.wire import messages as wire

FN, FINGERPRINT = b"f" * 16, b"p" * 16
ATTEMPT = wire.Attempt(1, 1)


def digest(value: int) -> bytes:
    """Return a digest of an argument."""
    return value.to_bytes(ids.DIGEST_BYTES, "big")


def call(parent: Parent, value: int) -> int:
    """Make a call; return its number."""
    made = parent.begin_found(FN, FINGERPRINT, digest(value))
    parent.add(made, digest(value), [b"arg"], last=True)
    return made.number


def outcome(number: int, value: int) -> wire.Outcomes:
    """Return the journaled outcome of a call."""
    found = wire.Outcome(number, 0, FINGERPRINT, digest(value), [b"value %d" % value], [])
    return wire.Outcomes(ids.SHARED, [found])


def last_page(upto: int, *records: wire.Outcomes) -> tuple[wire.History, list[HistoryRecord]]:
    """Return the only page of a history."""
    return wire.History(ids.SHARED, ATTEMPT, upto, True, 1 << 52, 0, [], [], [], 1), list(records)


def test_equal_calls_get_different_numbers_and_the_same_ones_in_every_attempt() -> None:
    """BC1."""
    first, second = ByContent(), ByContent()
    numbers = [first.number(FINGERPRINT, digest(value)) for value in (1, 2, 1, 1)]
    again = [second.number(FINGERPRINT, digest(value)) for value in (2, 1, 1, 1)]
    assert len(set(numbers)) == 4
    assert sorted(again) == sorted(numbers)
    assert again[0] == numbers[1]


def test_very_many_equal_calls_get_different_numbers() -> None:
    """BC1."""
    book = ByContent()
    numbers = {book.number(FINGERPRINT, digest(1)) for _ in range(10_000)}
    assert len(numbers) == 10_000
    assert all(0 <= number < 1 << 52 for number in numbers)
    assert all(book.is_made(number) for number in numbers)


def test_a_number_is_used_when_its_call_is_made() -> None:
    """BC1."""
    book, ahead = ByContent(), ByContent()
    number = ahead.number(FINGERPRINT, digest(7))
    second = ahead.number(FINGERPRINT, digest(7))
    assert not book.is_made(number)
    assert book.number(FINGERPRINT, digest(7)) == number
    assert book.is_made(number)
    assert not book.is_made(second)


def test_a_path_depends_on_the_content_and_not_on_the_order() -> None:
    """BC3."""
    one, other = Parent(ids.SHARED, ATTEMPT), Parent(ids.SHARED, ATTEMPT)
    numbers = [call(one, value) for value in (1, 2, 3)]
    assert [call(other, value) for value in (3, 1, 2)] == [numbers[2], numbers[0], numbers[1]]


def test_a_replay_finds_results_of_calls_that_come_in_another_order() -> None:
    """BC1, P1."""
    first = Parent(ids.SHARED, ATTEMPT)
    numbers = {value: call(first, value) for value in range(5)}
    replayed = Parent(ids.SHARED, ATTEMPT, replaying=True)
    early = call(replayed, 4)
    assert replayed.page_wanted() is not None
    replayed.page(*last_page(9, *[outcome(numbers[value], value) for value in range(4)]))
    assert replayed.calls.open[early].left, "the history does not have it"
    for value in (3, 0, 2, 1):
        assert call(replayed, value) not in replayed.calls.open, "its result is here"
    assert not replayed.calls.ahead


def test_a_different_call_with_the_same_number_is_computed_again() -> None:
    """BC2."""
    said: list[str] = []
    first = Parent(ids.SHARED, ATTEMPT)
    number = call(first, 1)
    replayed = Parent(ids.SHARED, ATTEMPT, replaying=True, tell_user=said.append)
    assert replayed.page_wanted() is not None
    replayed.page(*last_page(9, outcome(number, 2)))
    assert call(replayed, 1) == number
    assert replayed.calls.open[number].left
    assert said


def test_an_outcome_that_arrives_again_is_not_kept() -> None:
    """A broker that restarts sends the history again."""
    parent = Parent(ids.SHARED, ATTEMPT)
    number = call(parent, 1)
    parent.outcomes(outcome(number, 1))
    parent.outcomes(outcome(number, 1))
    assert not parent.calls.open
    assert not parent.calls.ahead
