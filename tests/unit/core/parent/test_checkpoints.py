"""Checkpoints in a parent: what it waits for when it enters a block, and from what it continues."""

from __future__ import annotations

import re
from typing import Any

import pytest

from resilient_scoop.core.parent.durable import OpenBlock
from resilient_scoop.core.parent.history import Question
from resilient_scoop.core.parent.parent import Parent
from resilient_scoop.errors import StrangeFutureError
from resilient_scoop.ids import ROOT
from resilient_scoop.wire import messages as wire
from tests.unit.bench import FN, digests, outcomes, record

FILE = b"Bfile of %d"

NOW = wire.Attempt(2, 1)


def going_on(**more: Any) -> Parent:
    return Parent(ROOT, NOW, True, tell_user=lambda _: None, **more)


def page(of: Parent, *records: Any, last: bool = True, **more: Any) -> None:
    marks = [wire.Mark("main", 0, r.gen) for r in more.pop("all", records)
             if isinstance(r, wire.Checkpoint)]  # fmt: skip
    head = wire.History(ROOT, NOW, 9, last, 9, checkpoints=marks, no=of.history.pages_asked, **more)
    of.page(head, list(records))


def entered(of: Parent) -> OpenBlock:
    return of.enter_block("main")


def test_a_block_waits_for_its_newest_generation() -> None:
    of = going_on()
    block = entered(of)
    first, second = record(NOW, 1, 2), record(NOW, 2, 4)
    assert not of.has_generations(block)

    page(of, first, last=False, all=[first, second])
    assert not of.has_generations(block)

    page(of, second, last=False)
    assert of.has_generations(block)
    assert [each.gen for each in of.durable.candidates(block)] == [2, 1]


def test_a_block_without_a_checkpoint_waits_for_one_page_only() -> None:
    of = going_on()
    block = entered(of)
    page(of, last=False)
    assert of.has_generations(block)
    assert of.durable.can_begin(block)


def test_a_parent_continues_with_the_counters_of_its_checkpoint() -> None:
    of = going_on()
    block = entered(of)
    kept = record(NOW, 3, 5, observations=4, openings={"main": 1, "inner": 7})
    observations = [wire.Observation(no, "k", 5, b"%d" % no) for no in range(3, 6)]
    page(of, outcomes(3, 0, 1), outcomes(5, 0, 1), wire.Observed(ROOT, NOW, observations), kept)

    of.continue_from(block, kept)

    assert of.durable.openings == {"main": 1, "inner": 7}
    assert of.recall(Question("k")) == b"4"
    call = of.begin(FN, FN)
    assert call.number == 5
    of.add(call, digests(0), [b"arg"], last=True)
    assert call.find(0) is not None, "what came after the checkpoint is there"


def test_counters_never_decrease() -> None:
    of = Parent(ROOT, NOW, tell_user=lambda _: None)
    for _ in range(8):
        of.add(of.begin(FN, FN), digests(0), [b"arg"], last=True)
    block = entered(of)

    of.continue_from(block, record(NOW, 1, 5))

    assert of.begin(FN, FN).number == 8


def test_a_pending_future_is_settled_by_an_outcome_that_has_arrived_meanwhile() -> None:
    of = going_on()
    block = entered(of)
    kept = record(NOW, 1, 5, pending=[2, 3])
    page(of, outcomes(2, 0, 1), kept)
    of.continue_from(block, kept)

    first = of.revive(2, FN, FN, 0, digests(0))
    second = of.revive(3, FN, FN, 0, digests(0))
    assert first.find(0) is not None
    assert second.find(0) is None

    of.outcomes(outcomes(3, 0, 1, salt=1))
    assert second.find(0) is None, "another call's outcome is no outcome"
    of.outcomes(outcomes(3, 0, 1))
    assert second.find(0) is not None


def checkpoint_made(of: Parent, block: OpenBlock) -> wire.Checkpoint:
    of.save(block, b"state", [], (0, 0), b"")
    made = wire.decode_up(of.frames()[-1])
    assert isinstance(made, wire.Checkpoint)
    return made


def test_a_generation_names_unfinished_calls_and_those_with_unread_files() -> None:
    of = Parent(ROOT, NOW, tell_user=lambda _: None)
    before = of.begin(FN, FN)
    of.add(before, digests(0), [b"arg"], last=True)
    block = entered(of)
    small, large, late, empty = (of.begin(FN, FN) for _ in range(4))
    for each in (small, large, late):
        of.add(each, digests(0), [b"arg"], last=True)
    of.outcomes(outcomes(small.number, 0, 1))
    of.outcomes(outcomes(large.number, 0, 1, value=FILE))

    # It names unfinished calls, and calls whose values are still in files; not calls in memory or
    # without items
    assert checkpoint_made(of, block).held == [large.number, late.number]

    # When the arrived values are read, the call is not named any more
    assert large.find(0) is not None
    del each, large
    of.outcomes(outcomes(late.number, 0, 1))
    assert checkpoint_made(of, block).held == []
    assert empty.count == 0


def test_a_future_made_before_the_block_is_settled_by_reading_the_history_again() -> None:
    of = going_on()
    of.add(of.begin(FN, FN), digests(0), [b"arg"], last=True)
    block = entered(of)
    kept = record(NOW, 1, 3, pending=[0], entry=1)
    page(of, outcomes(0, 0, 1), kept, last=False)
    of.continue_from(block, kept)

    # Given a call whose outcome has arrived and was dropped, and a page that is already requested
    again = of.revive(0, FN, FN, 0, digests(0))
    assert again.find(0) is None
    assert of.page_wanted() is not None
    page(of)
    assert not of.history.replaying

    # Then the history is read once more, from the call on, and counts as recovered
    wanted = of.page_wanted()
    assert wanted is not None
    assert wire.decode_up(wanted) == wire.HistoryWanted(ROOT, NOW, 0, 0, of.history.pages_asked)
    page(of, outcomes(0, 0, 1))
    assert again.find(0) is not None
    assert of.calls.settled == of.calls.recovered
    assert of.page_wanted() is None


def test_a_block_entered_while_the_history_is_read_makes_it_read_again() -> None:
    of = going_on()
    of.add(of.begin(FN, FN), digests(0), [b"arg"], last=True)
    kept = record(NOW, 1, 3, pending=[0], entry=1)
    page(of, outcomes(0, 0, 1), kept)
    of.reconnect()
    assert of.page_wanted() is not None
    block = entered(of)
    of.continue_from(block, kept)

    again = of.revive(0, FN, FN, 0, digests(0))
    page(of)  # the present reading begins after the call

    assert again.find(0) is None
    assert of.page_wanted() is not None
    page(of, outcomes(0, 0, 1))
    assert again.find(0) is not None


def test_a_future_whose_call_the_code_has_replaced_is_refused_when_the_history_lacks_its_outcome() -> (
    None
):
    notes: list[str] = []
    of = Parent(ROOT, NOW, replaying=True, tell_user=notes.append)
    other = wire.Outcomes(ROOT, [wire.Outcome(0, 0, FN, digests(0), [b"other"], [], 0.0, NOW)])
    of.add(of.begin(FN, FN), digests(0), [b"arg"], last=True)
    block = entered(of)
    kept = record(NOW, 1, 3, pending=[0, 2], entry=1)
    page(of, other, kept)
    of.continue_from(block, kept)

    # Given a state with the future of another item in the place of a call that is over, and one of
    # a call that the checkpoint covers
    future = of.revive(0, FN, FN, 0, digests(0, salt=1), name="f")
    inside = of.revive(2, FN, FN, 0, digests(0))

    # Then a new broker is no reason to refuse, and the end of the history is one
    of.reconnect()
    of.page_wanted()
    page(of, other, last=False)
    of.page_wanted()
    with pytest.raises(StrangeFutureError, match=re.escape("0.0[0]")):
        page(of)
    assert isinstance(of.judge.refusal, StrangeFutureError)
    assert future.find(0) is None
    assert not notes, "nothing is computed again"
    assert inside.left, "that one may come yet"


@pytest.mark.parametrize(
    ("fn", "name", "salt", "refused"),
    [
        (FN, "f", 0, False),
        (b"g" * 16, "f", 0, False),  # its code has changed: it is computed again
        (b"g" * 16, "g", 0, True),
        (FN, "f", 1, True),
    ],
)
def test_a_future_waits_for_a_running_call_only_if_it_is_the_same_call(
    fn: bytes, name: str, salt: int, *, refused: bool
) -> None:
    of = going_on()
    of.judge.name_of = lambda _: "f"
    call = of.begin(FN, FN)
    of.add(call, digests(0), [b"arg"], last=True)
    block = entered(of)
    kept = record(NOW, 1, 3, pending=[0], entry=1)
    page(of, kept)
    of.continue_from(block, kept)

    if refused:
        with pytest.raises(StrangeFutureError):
            of.revive(0, fn, fn, 0, digests(0, salt=salt), name=name)
        assert isinstance(of.judge.refusal, StrangeFutureError)
    else:
        assert of.revive(0, fn, fn, 0, digests(0, salt=salt), name=name) is call
        of.outcomes(outcomes(0, 0, 1))
        assert call.find(0) is not None
    assert call.digests == digests(0), "the call is what the code has made"


def test_a_checkpoint_is_sent_after_calls_and_observations() -> None:
    of = Parent(ROOT, NOW, tell_user=lambda _: None)
    of.observe("k", b"")
    of.add(of.begin(FN, FN), digests(0), [b"arg"], last=True)
    block = entered(of)
    of.observe("k", b"")
    of.save(block, b"state", [], (0, 0), b"")

    kinds = [type(wire.decode_up(frame)).__name__ for frame in of.frames()]
    assert kinds == ["Observed", "Calls", "Args", "Checkpoint"]
    assert not of.durable.is_saved(block)
    of.durable.note("main", 0, 1)
    assert of.durable.is_saved(block)


def test_a_block_cannot_restart_from_its_beginning_after_it_has_trimmed() -> None:
    of = going_on()
    block = entered(of)
    page(of, dropped=[(0, 3)], trimmed_by=[("main", 0)])
    assert not of.durable.can_begin(block)


def test_calls_whose_outcomes_were_dropped_are_reported() -> None:
    notes: list[str] = []
    of = Parent(ROOT, NOW, True, tell_user=notes.append)
    page(of, dropped=[(0, 3)])
    of.begin(FN, FN)
    of.begin(FN, FN)
    assert len(notes) == 1
    assert "covered by a checkpoint that the code does not reach any more" in notes[0]
