"""A parent is compared with its journal: the first difference, or the point where the history ends."""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn

import pytest

from resilient_scoop.core.parent.history import Question
from resilient_scoop.core.parent.once import Label
from resilient_scoop.core.parent.replayed import End, RecordedCalls, Replayed
from resilient_scoop.errors import InvariantError
from resilient_scoop.ids import ROOT
from resilient_scoop.wire import messages as wire
from tests.unit.bench import FN, ONCE, PLAIN, RISKY, digests, outcomes, part

NOW = wire.Attempt(1, 1)
OTHER = wire.Define(b"fn-other........", b"other-code......", "m:plain", b"code", wire.Options())
DEFINES = {each.fn: each for each in (PLAIN, RISKY, OTHER)}


class Halted(BaseException):
    def __init__(self, end: End) -> None:
        super().__init__(end)
        self.end = end


def halt(end: End) -> NoReturn:
    raise Halted(end)


def asked(*records: tuple[wire.Part, ...]) -> RecordedCalls:
    found = RecordedCalls(ROOT, DEFINES)
    for seq, parts in enumerate(records, 1):
        found.take(seq, wire.Calls(ROOT, NOW, list(parts)))
        found.upto = seq
    return found


def parent(journal: RecordedCalls, *reuse: str) -> Replayed:
    return Replayed(NOW, journal, reuse, halt, lambda fn: DEFINES[fn].name)


def call(
    of: Replayed, start: int, stop: int, *, fn: bytes = FN, salt: int = 0, last: bool = True
) -> None:
    made = of.begin(fn, DEFINES[fn].fingerprint)
    args = [b"arg%d" % index for index in range(start, stop)]
    of.add(made, digests(*range(start, stop), salt=salt), args, last=last)


def page(of: Replayed, *records: wire.Outcomes | wire.Observed, last: bool = True) -> None:
    assert of.page_wanted() is not None
    of.page(
        wire.History(ROOT, NOW, 9, last, of.asked.next_call, no=of.history.pages_asked),
        list(records),
    )


def observed(no: int, kind: str, at_call: int) -> wire.Observed:
    return wire.Observed(ROOT, NOW, [wire.Observation(no, kind, at_call, b"a")])


def test_equal_calls_are_no_difference() -> None:
    of = parent(asked((part(0, 0, 3),), (part(1, 0, 2, last=False), part(1, 2, 4))))
    page(of, outcomes(0, 0, 3), outcomes(1, 0, 4))
    call(of, 0, 3)
    made = of.begin(FN, FN)
    of.add(made, digests(0, 1, 2), [b"a"] * 3, last=False)
    of.add(made, digests(3), [b"a"], last=True)
    assert of.calls.recovered == 7
    of.finish("its end", failed=False, journaled="its end")


@pytest.mark.parametrize(
    ("fn", "stop", "salt", "what", "expected", "found"),
    [
        (ONCE, 3, 0, "call", "plain, 3 items", "risky, 3 items"),
        (FN, 2, 0, "call", "plain, 3 items", "plain, 2 items"),
        (FN, 4, 0, "call", "plain, 3 items", "plain, 4 items"),
        (FN, 3, 5, "arguments", "the argument that was journaled", "another"),
        (OTHER.fn, 3, 0, "code", "plain as it was", "plain with other code"),
    ],
)
def test_another_call_is_a_difference(
    fn: bytes, stop: int, salt: int, what: str, expected: str, found: str
) -> None:
    of = parent(asked((part(0, 0, 3),)))

    with pytest.raises(Halted) as halted:
        call(of, 0, stop, fn=fn, salt=salt)

    assert halted.value.end.differs
    assert (halted.value.end.what, halted.value.end.expected, halted.value.end.found) == (
        what, expected, found,
    )  # fmt: skip


def test_the_first_different_argument_is_named_with_its_position_in_the_journal() -> None:
    of = parent(asked((part(0, 0, 2), part(1, 0, 3))))
    call(of, 0, 2)
    made = of.begin(FN, FN)

    with pytest.raises(Halted) as halted:
        of.add(made, digests(0) + digests(1, salt=9) + digests(2), [b"a", b"b", b"c"], last=True)

    end = halted.value.end
    assert (end.call, end.item, end.arg) == (1, 1, b"b")
    assert end.piece is not None
    assert (end.piece.record, end.piece.offset) == (1, 2)


def test_changed_code_that_may_be_reused_is_no_difference() -> None:
    of = parent(asked((part(0, 0, 3),)), "m:plain")
    page(of, outcomes(0, 0, 3))
    call(of, 0, 3, fn=OTHER.fn)
    assert of.calls.recovered == 3


def test_repeated_items_count_and_replaced_ones_do_not() -> None:
    of = parent(asked((part(0, 0, 3),), (part(0, 1, 2, salt=7, fresh=True, last=False),)))
    made = of.begin(FN, FN)
    of.add(made, digests(0) + digests(1, salt=7) + digests(2), [b"a", b"b", b"c"], last=True)
    assert list(made.left) == [(0, 3)]


def test_a_call_beyond_the_journal_is_the_end_of_the_history_unless_the_run_had_ended() -> None:
    of = parent(asked((part(0, 0, 1),)))
    page(of, outcomes(0, 0, 1))
    call(of, 0, 1)
    call(of, 0, 1)
    with pytest.raises(Halted) as halted:
        of.stand_still()
    assert not halted.value.end.differs
    assert "0.1[0]" in halted.value.end.found

    over = parent(asked((part(0, 0, 1),)))
    over.ended = True
    page(over, outcomes(0, 0, 1))
    call(over, 0, 1)
    with pytest.raises(Halted) as halted:
        call(over, 0, 1)
    assert halted.value.end.differs


def test_a_call_that_a_repair_left_out_is_the_end_of_the_history_unless_the_parent_had_ended() -> (
    None
):
    of = parent(asked((part(1, 0, 1),)))
    page(of, outcomes(1, 0, 1))
    with pytest.raises(Halted) as halted:
        call(of, 0, 1)
    assert not halted.value.end.differs
    assert halted.value.end.found.startswith(
        "makes call 0.0 of plain, which a repair of the journal"
    )

    over = parent(asked((part(1, 0, 1),)))
    over.ended = True
    page(over, outcomes(1, 0, 1))
    with pytest.raises(Halted) as halted:
        call(over, 0, 1)
    assert halted.value.end.expected == "a call that a repair of the journal left out"


def test_answers_are_repeated_and_the_last_one_is_the_end_of_the_history() -> None:
    of = parent(asked((part(0, 0, 1),)))
    page(of, observed(0, "once", 0), outcomes(0, 0, 1))
    assert of.recall(Question("once")) == b"a"
    call(of, 0, 1)

    with pytest.raises(Halted) as halted:
        of.recall(Question("done"))

    assert not halted.value.end.differs
    assert of.observed_count == 1


def test_an_unrecorded_answer_is_a_difference_if_later_calls_are_known() -> None:
    of = parent(asked((part(0, 0, 1),), (part(1, 0, 1),)))
    page(of, outcomes(0, 0, 1))
    call(of, 0, 1)
    with pytest.raises(Halted) as halted:
        of.recall(Question("once"))
    assert halted.value.end.differs


def test_an_answer_that_differs_from_the_recorded_one_is_a_difference() -> None:
    of = parent(asked((part(0, 0, 1),)))
    page(of, observed(0, "once", 0))
    with pytest.raises(Halted) as halted:
        of.recall(Question("settled"))
    assert halted.value.end.what == "observation"
    assert halted.value.end.expected == "`once` at call 0"


def test_an_end_before_the_last_call_or_answer_of_the_journal_is_a_difference() -> None:
    of = parent(asked((part(0, 0, 1),)))
    page(of)
    with pytest.raises(Halted) as halted:
        of.finish("its end", failed=False, journaled=None)
    assert halted.value.end.expected == "call 0.0 of plain, 1 item"

    left = parent(asked())
    page(left, observed(0, "once", 0))
    with pytest.raises(Halted) as halted:
        left.finish("its end", failed=False, journaled=None)
    assert halted.value.end.expected == "`once` at call 0"


def longer() -> Replayed:
    """Return a run that ended after one call and answer; its earlier code had made more."""
    of = parent(asked((part(0, 0, 1), part(1, 0, 1))))
    of.end_at(1, 1)
    page(of, observed(0, "once", 0), outcomes(0, 0, 1), observed(1, "once", 1))
    return of


def test_the_end_is_the_one_that_the_last_attempt_recorded() -> None:
    of = longer()
    assert of.recall(Question("once")) == b"a"
    call(of, 0, 1)
    of.finish("its end", failed=False, journaled="its end")

    more: list[tuple[Callable[[], object], str]] = [
        (lambda: call(of, 0, 1), "no such call"),
        (lambda: of.recall(Question("once")), "no answer here"),
    ]
    for does, expected in more:
        with pytest.raises(Halted) as halted:
            does()
        assert halted.value.end.expected == expected

    early = longer()
    early.recall(Question("once"))
    with pytest.raises(Halted) as halted:
        early.finish("its end", failed=False, journaled="its end")
    assert halted.value.end.expected == "call 0.0 of plain, 1 item"


def test_another_end_is_a_difference() -> None:
    for failed, journaled in ((False, "exit code 3"), (True, None)):
        of = parent(asked())
        page(of)
        with pytest.raises(Halted) as halted:
            of.finish("its end", failed=failed, journaled=journaled)
        assert halted.value.end.what == "end"


def test_a_call_below_a_checkpoint_is_described_without_a_position() -> None:
    of = asked((part(0, 0, 1),), (part(1, 0, 1),))
    of.take(3, wire.Trimmed(ROOT, [(0, 1)], [], 1, [("s", 0)]))
    assert (list(of.calls), of.next_call) == ([1], 2)
    assert of.describe(0) == "what a checkpoint covers"


def test_a_replay_does_not_wait_for_the_end_of_given_up_items() -> None:
    journal = asked((part(0, 0, 3),))
    journal.take(2, wire.Abandoned(ROOT, 0, [(1, 3)]))
    of = parent(journal)
    page(of, outcomes(0, 0, 1))
    call(of, 0, 3)
    assert of.is_drained()

    journal.take(3, wire.Calls(ROOT, NOW, [part(0, 2, 3)]))  # it was called again
    assert not of.is_drained()


def test_once_without_an_answer_ends_the_history_or_is_a_difference_after_its_end() -> None:
    of = parent(asked((part(0, 0, 1),)))
    page(of, outcomes(0, 0, 1))
    with pytest.raises(Halted) as halted:
        of.recall_once(of.begin_once(0), Label("m:f"))
    assert not halted.value.end.differs
    assert "whose function has not ended" in halted.value.end.found

    over = parent(asked((part(0, 0, 1),)))
    over.ended = True
    page(over, outcomes(0, 0, 1))
    with pytest.raises(Halted) as halted:
        over.recall_once(over.begin_once(0), Label("m:f"))
    assert halted.value.end.expected == "no answer here"


def test_a_replay_refuses_new_records() -> None:
    with pytest.raises(InvariantError, match="RP3"):
        parent(asked()).observe("done", b"a")
