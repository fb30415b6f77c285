"""The parent machine: calls, histories, observations."""

from __future__ import annotations

import msgspec
import pytest

from resilient_scoop.core.parent.awaited import AWAITED_BYTES, digest_of
from resilient_scoop.core.parent.call import Call
from resilient_scoop.core.parent.history import Question
from resilient_scoop.core.parent.judge import Policy
from resilient_scoop.core.parent.parent import Parent
from resilient_scoop.errors import DiscardError, ReplayDivergedError
from resilient_scoop.ids import ROOT
from resilient_scoop.wire import messages as wire
from tests.unit.bench import FN, digests, outcomes

NOW = wire.Attempt(2, 1)


def parent(**more: object) -> Parent:
    return Parent(ROOT, NOW, tell_user=lambda _: None, **more)  # type: ignore[arg-type]


def call(of: Parent, start: int, stop: int, *, salt: int = 0, last: bool = True) -> Call:
    made = of.begin(FN, FN)
    more(of, made, start, stop, salt=salt, last=last)
    return made


def more(of: Parent, to: Call, start: int, stop: int, *, salt: int = 0, last: bool = True) -> None:
    args = [b"arg%d" % index for index in range(start, stop)]
    of.add(to, digests(*range(start, stop), salt=salt), args, last=last)


def page(
    of: Parent, *records: wire.Outcomes | wire.Observed, last: bool = True, calls: int = 1
) -> None:
    of.page(wire.History(ROOT, NOW, 9, last, calls, no=of.history.pages_asked), list(records))


def asked(of: Parent) -> list[tuple[int, int, int, bool]]:
    """Return what is sent: call, start, stop, fresh."""
    found = []
    for message in map(wire.decode_up, of.frames()):
        if isinstance(message, wire.Calls):
            found += [(p.call, p.start, p.start + p.count, p.fresh) for p in message.parts]
    return found


def value(of: Call, index: int) -> bytes | None:
    chunk = of.find(index)
    return None if chunk is None else chunk.values[index - chunk.start]


def observed(
    no: int, kind: str, at_call: int, answer: bytes = b"a", rests_on: bytes = b""
) -> wire.Observed:
    return wire.Observed(ROOT, NOW, [wire.Observation(no, kind, at_call, answer, rests_on)])


def test_calls_are_numbered_and_sent_once_with_their_arguments() -> None:
    of = parent()
    call(of, 0, 2)
    call(of, 0, 1)

    calls, args = map(wire.decode_up, of.frames())

    assert isinstance(calls, wire.Calls)
    assert [(p.call, p.count, p.last) for p in calls.parts] == [(0, 2, True), (1, 1, True)]
    assert args == wire.Args([b"arg0", b"arg1", b"arg0"])
    assert of.frames() == []


def test_an_outcome_settles_its_items_once() -> None:
    of = parent()
    made = call(of, 0, 3)

    of.outcomes(outcomes(0, 1, 2))
    assert [value(made, index) for index in range(3)] == [None, b"Vvalue1", None]
    other = wire.Outcome(0, 1, FN, digests(1), [b"another"])
    of.outcomes(wire.Outcomes(ROOT, [other]))

    assert value(made, 1) == b"Vvalue1"
    assert list(made.left) == [(0, 1), (2, 3)]


def test_a_settled_call_is_dropped() -> None:
    of = parent()
    call(of, 0, 2)
    of.outcomes(outcomes(0, 0, 2))

    assert of.calls.open == {}
    assert of.calls.under_way.in_messages == 0


def test_a_replay_sends_only_what_the_history_does_not_settle() -> None:
    # Given a parent that replays and makes a call of five items
    of = parent(replaying=True)
    made = call(of, 0, 5)
    assert asked(of) == []

    # When the history has outcomes of three of them
    page(of, outcomes(0, 1, 4), observed(0, "once", 1))

    # Then the others are sent
    assert asked(of) == [(0, 0, 1, False), (0, 4, 5, False)]
    assert value(made, 2) == b"Vvalue2"
    assert of.calls.recovered == 3


def test_outcomes_of_later_calls_wait_for_these_calls() -> None:
    of = parent(replaying=True)
    page(of, outcomes(1, 0, 1), calls=2)
    call(of, 0, 1)

    made = call(of, 0, 1)

    assert value(made, 0) == b"Vvalue0"


def test_a_lazy_map_finds_outcomes_of_items_that_it_makes_later() -> None:
    of = parent(replaying=True)
    page(of, outcomes(0, 0, 4))
    made = of.begin(FN, FN)

    more(of, made, 0, 2, last=False)
    more(of, made, 2, 4, last=True)

    assert [value(made, index) for index in (0, 3)] == [b"Vvalue0", b"Vvalue3"]


def test_an_outcome_of_other_arguments_makes_its_item_run_again_once() -> None:
    # Given a replay whose call has other arguments than the journal
    of = parent(replaying=True)
    made = call(of, 0, 2, salt=7)

    # When the page arrives, and the same outcomes arrive once more in another way
    page(of, outcomes(0, 0, 2))
    assert asked(of) == [(0, 0, 2, True)]
    of.outcomes(outcomes(0, 0, 2))

    # Then no stale outcome has settled them, and they were sent once
    assert value(made, 0) is None
    assert asked(of) == []
    of.outcomes(outcomes(0, 0, 2, salt=7))
    assert value(made, 0) == b"Vvalue0"


def test_a_later_outcome_of_the_history_replaces_one_of_other_arguments() -> None:
    of = parent(replaying=True)
    made = call(of, 0, 1, salt=7)

    page(of, outcomes(0, 0, 1), outcomes(0, 0, 1, salt=7))

    assert value(made, 0) == b"Vvalue0"
    assert asked(of) == []


def test_a_strict_replay_does_not_recompute() -> None:
    of = parent(replaying=True, policy=Policy(strict=True))
    call(of, 0, 1, salt=7)

    with pytest.raises(ReplayDivergedError):
        page(of, outcomes(0, 0, 1))


def long_outcome(start: int, stop: int, spent_s: float) -> wire.Outcomes:
    (item,) = outcomes(0, start, stop).items
    return wire.Outcomes(ROOT, [msgspec.structs.replace(item, spent_s=spent_s)])


def test_a_resume_does_not_discard_many_results_without_the_consent_of_the_user() -> None:
    of = parent(replaying=True, policy=Policy(discard_s_max=60.0))
    call(of, 0, 2, salt=7)

    with pytest.raises(DiscardError, match="61 s"):
        page(of, long_outcome(0, 2, 61.0))

    assert asked(of) == []  # no result has been replaced
    with pytest.raises(DiscardError):
        raise of.judge.refusal or AssertionError


@pytest.mark.parametrize(
    ("policy", "spent_s"),
    [
        (Policy(discard_s_max=60.0), 59.0),
        (Policy(discard_s_max=60.0, recompute=("*",)), 61.0),
        (Policy(), 61.0),
    ],
)
def test_few_results_and_results_that_the_user_gave_up_are_discarded(
    policy: Policy, spent_s: float
) -> None:
    of = parent(replaying=True, policy=policy)
    call(of, 0, 2, salt=7)
    page(of, long_outcome(0, 2, spent_s))
    assert asked(of) == [(0, 0, 2, True)]


def test_results_that_a_later_outcome_replaces_do_not_count_as_discarded() -> None:
    of = parent(replaying=True, policy=Policy(discard_s_max=60.0))
    call(of, 0, 1, salt=7)
    page(of, long_outcome(0, 1, 61.0), outcomes(0, 0, 1, salt=7))
    assert asked(of) == []


def test_observations_are_sent_before_the_next_call() -> None:
    of = parent()
    call(of, 0, 1)
    of.frames()

    of.observe("done", b"0")
    call(of, 0, 1)

    assert [type(wire.decode_up(f)) for f in of.frames()] == [wire.Observed, wire.Calls, wire.Args]


def test_observations_are_repeated_in_order() -> None:
    # Given a replay with two recorded answers on two pages
    of = parent(replaying=True)
    assert of.history.needs_page()
    page(of, observed(0, "once", 0, b"first"), last=False)

    # When it asks again, then it gets the same answer, and needs the next page for the second
    assert of.recall(Question("once")) == b"first"
    assert of.history.needs_page()
    page(of, observed(1, "once", 0, b"second"))
    assert of.recall(Question("once")) == b"second"

    # And after the last recorded answer it gets new ones, with the next number
    assert of.recall(Question("once")) is None
    of.observe("once", b"third")
    (message,) = map(wire.decode_up, of.frames())
    assert isinstance(message, wire.Observed)
    assert [each.no for each in message.observations] == [2]


def test_an_answer_for_another_position_ends_the_use_of_the_history() -> None:
    # Given a history that continues with another question
    notes: list[str] = []
    of = Parent(ROOT, NOW, replaying=True, tell_user=notes.append)
    page(of, observed(0, "done", 4), observed(1, "done", 5))

    # When the parent asks another question, then it gets new answers, and this is reported and
    # marked
    assert of.differs(Question("once"))
    assert of.recall(Question("once")) is None
    assert "gets new answers" in notes[0]
    of.observe("once", b"new")
    (message,) = map(wire.decode_up, of.frames())
    assert isinstance(message, wire.Observed)
    assert [(each.no, each.kind) for each in message.observations] == [(2, "rewind"), (3, "once")]


def test_a_replay_after_a_divergence_follows_the_mark() -> None:
    of = parent(replaying=True)
    page(of, observed(0, "done", 4), observed(1, "rewind", 0, b"0"), observed(2, "once", 0, b"new"))

    assert of.recall(Question("once")) == b"new"


def test_a_parent_asks_again_after_the_answer_after_which_it_failed() -> None:
    # Given a history whose first answer is not used again, and which has more pages
    notes: list[str] = []
    of = Parent(ROOT, NOW, replaying=True, tell_user=notes.append)
    of.history.again = frozenset([0])
    page(of, observed(0, "result", 0, b"0"), last=False)
    assert of.recall(Question("result")) is None
    assert notes == []

    # When the history is at its end, then it gets a new answer, which is marked and reported
    page(of)
    assert of.recall(Question("result")) is None
    assert "it waits again" in notes[0]
    of.observe("result", b"1")
    (message,) = map(wire.decode_up, of.frames())
    assert isinstance(message, wire.Observed)
    answers = [(each.kind, each.answer) for each in message.observations]
    assert answers == [("rewind", b"0"), ("result", b"1")]

    # And a later attempt uses that one
    later = Parent(ROOT, NOW, replaying=True, tell_user=notes.append)
    later.history.again = frozenset([0])
    page(later, observed(0, "result", 0, b"0"), last=False)
    assert later.recall(Question("result")) is None
    page(later, message)
    assert later.recall(Question("result")) == b"1"
    assert len(notes) == 1


LATE = (
    observed(0, "result", 1, b"0", rests_on=b"former call     "),
    observed(1, "once", 1, b"later"),
)


def awaiting(**more: object) -> tuple[Parent, Question]:
    """Return a parent that awaits a call which was edited after its time limit was recorded as over."""
    of = parent(replaying=True, **more)
    made = call(of, 0, 1)
    page(of, *LATE[:1], last=False)
    question = Question("result", rests_on=lambda _answer: [(made, 0)])
    assert of.recall(question) is None
    assert of.history.recorded, "while it replays, the whole history is read first"
    page(of, *LATE[1:])
    assert of.recall(question) is None
    return of, question


def test_an_answer_about_a_call_that_was_edited_is_asked_for_again() -> None:
    # Given another answer, then it and all later answers are new, and this is marked
    of, question = awaiting()
    of.frames()
    of.answer_anew(question, b"1")
    (message,) = map(wire.decode_up, of.frames())
    assert isinstance(message, wire.Observed)
    answers = [(each.kind, each.answer) for each in message.observations]
    assert answers == [("rewind", b"0"), ("result", b"1")]
    assert message.observations[1].rests_on not in (b"", LATE[0].observations[0].rests_on)
    assert of.recall(Question("once")) is None

    # And a later attempt with that call uses them
    later = parent(replaying=True)
    made = call(later, 0, 1)
    page(later, *LATE, message)
    assert later.recall(Question("result", rests_on=lambda _answer: [(made, 0)])) == b"1"


def test_the_same_answer_about_a_call_that_was_edited_keeps_the_later_ones() -> None:
    of, question = awaiting()
    of.frames()
    of.answer_anew(question, b"0")
    assert of.recall(Question("once")) == b"later"
    assert of.frames() == []


def test_a_strict_parent_refuses_another_answer_about_a_call_that_was_edited() -> None:
    of, question = awaiting(policy=Policy(strict=True))
    with pytest.raises(ReplayDivergedError, match="what it waits for was edited"):
        of.answer_anew(question, b"1")


def test_an_answer_about_code_whose_results_are_kept_is_kept() -> None:
    of = parent(replaying=True, policy=Policy(reuse=("*",)))
    made = call(of, 0, 1)
    before = digest_of([(made, 0)])[:AWAITED_BYTES] + b"function"
    page(of, observed(0, "result", 1, b"0", rests_on=before))
    assert of.recall(Question("result", rests_on=lambda _answer: [(made, 0)])) == b"0"


def test_an_answer_without_a_time_limit_rests_on_no_call() -> None:
    of = parent(replaying=True)
    call(of, 0, 1)
    page(of, *LATE)
    assert of.recall(Question("result")) == b"0"


def test_a_page_that_arrives_twice_is_used_once() -> None:
    of = parent(replaying=True)
    page(of, observed(0, "once", 0), last=False)
    page(of, observed(0, "once", 0), last=False)

    assert of.recall(Question("once")) == b"a"
    assert of.history.needs_page()


def test_a_parent_that_outlives_its_broker_requests_the_history_from_the_first_missing_call() -> (
    None
):
    # Given a live parent that waits for its second call
    of = parent()
    call(of, 0, 1)
    made = call(of, 0, 1)
    of.outcomes(outcomes(0, 0, 1))

    # When there is a new broker, then the parent requests a page
    of.reconnect()
    wanted = of.page_wanted()
    assert wanted is not None
    assert wire.decode_up(wanted) == wire.HistoryWanted(ROOT, NOW, 0, 1, 1)
    assert of.page_wanted() is None

    # And the missed outcomes arrive with it
    page(of, outcomes(1, 0, 1))
    assert value(made, 0) == b"Vvalue0"
    assert of.page_wanted() is None


def test_a_page_that_was_requested_before_a_cut_is_not_taken_for_a_later_one() -> None:
    # Given a live parent that has requested a page, and again after a cut
    of = parent()
    made = call(of, 0, 2)
    of.reconnect()
    assert of.page_wanted() is not None
    of.reconnect()
    assert of.page_wanted() is not None

    # When the first request is answered after all, with the outcomes of that time
    of.page(wire.History(ROOT, NOW, 9, last=True, calls=1, no=1), [outcomes(0, 0, 1)])

    # Then the parent waits for the other answer, which is complete
    assert of.history.catching_up
    assert of.page_wanted() is None
    page(of, outcomes(0, 0, 2))
    assert value(made, 1) == b"Vvalue1"
    assert not of.history.catching_up


def test_a_replay_requests_a_page_early_when_half_of_the_one_before_is_used() -> None:
    # Given a replay without pages: the first page may be requested at once, one time
    of = parent(replaying=True)
    assert of.page_wanted(early=True) is not None
    assert of.page_wanted(early=True) is None
    assert of.page_wanted() is None

    # When a page has the outcomes of four calls, and the parent makes these calls one after the
    # other
    whole = [wire.Outcome(number, 0, FN, digests(0), [b"Vvalue0"]) for number in range(4)]
    page(of, wire.Outcomes(ROOT, whole), last=False, calls=9)
    early = []
    for _ in range(3):
        early.append(of.page_wanted(early=True) is not None)
        call(of, 0, 1)
    early.append(of.page_wanted(early=True) is not None)

    # Then the next page is requested after the second call; observations count, too
    assert early == [False, False, True, False]
    page(of, *(observed(no, "cpu_count", 3) for no in range(3)), last=False)
    assert of.page_wanted(early=True) is None
    of.recall(Question("cpu_count"))
    assert of.page_wanted(early=True) is None
    of.recall(Question("cpu_count"))
    assert of.page_wanted(early=True) is not None

    # And a parent that is live, or catches up, requests none early
    page(of)
    assert not of.history.replaying
    assert of.page_wanted(early=True) is None
    of.reconnect()
    assert of.page_wanted(early=True) is None
    assert of.page_wanted() is not None


def test_a_call_that_the_history_has_settled_is_not_sent_at_all() -> None:
    # Given a history that arrived completely before the calls were made
    of = parent(replaying=True)
    page(of, outcomes(0, 0, 3))
    assert not of.history.replaying

    # When the call is made, with one more item than before
    made = call(of, 0, 4)

    # Then only this item is sent
    assert asked(of) == [(0, 3, 4, False)]
    assert value(made, 2) == b"Vvalue2"


def test_files_of_arguments_are_counted_until_their_items_are_settled() -> None:
    of = parent()
    made = of.begin(FN, FN)
    of.add(made, digests(0, 1, 2), [b"Bfile", b"small", b"Bfile"], last=False, files={0: 10, 2: 30})
    of.add(made, digests(3), [b"Bfile"], last=True, files={0: 50})
    assert (of.calls.under_way.files, of.calls.under_way.in_files) == (3, 90)

    of.outcomes(outcomes(0, 1, 3))
    assert (
        of.calls.under_way.files,
        of.calls.under_way.in_files,
        of.calls.under_way.ended_files,
    ) == (
        2,
        60,
        [(0, 2)],
    )
    of.outcomes(outcomes(0, 0, 4))
    assert (of.calls.under_way.files, of.calls.under_way.in_files) == (0, 0)
    assert sorted(of.calls.under_way.ended_files) == [(0, 0), (0, 2), (0, 3)]


def test_a_call_whose_further_arguments_cannot_be_pickled_ends_with_the_arguments_before() -> None:
    of = parent()
    made = call(of, 0, 2, last=False)
    of.given_up.name(made, abandoned=False)
    parts = [
        p for m in map(wire.decode_up, of.frames()) if isinstance(m, wire.Calls) for p in m.parts
    ]
    assert [(p.start, p.count, p.last) for p in parts] == [(0, 2, False), (2, 0, True)]

    of.outcomes(outcomes(0, 0, 2))
    assert not of.calls.open


def test_a_question_that_a_broker_did_not_answer_is_repeated_to_the_next_one() -> None:
    # Given a parent that asks to cancel an item
    parent = Parent(ROOT, wire.Attempt(1, 1))
    call = parent.begin(FN, FN)
    parent.add(call, digests(0), [b"arg"], last=True)
    parent.ask_cancel(0, 0)
    asked = [wire.decode_up(frame) for frame in parent.frames()]
    assert [type(each) for each in asked] == [wire.Calls, wire.Args, wire.Cancel]

    # When a new broker begins, then the parent asks again
    parent.reconnect()
    assert [wire.decode_up(frame) for frame in parent.frames()] == [asked[-1]]

    # And an answered question is not repeated; answers without a question change nothing
    parent.cancels.hear(wire.CancelAnswer(ROOT, 0, 0, cancelled=True))
    parent.cancels.hear(wire.CancelAnswer(ROOT, 0, 0, cancelled=False))
    assert parent.cancels.is_answered(0, 0)
    assert parent.cancels.end(0, 0) is True
    parent.reconnect()
    assert parent.frames() == []


def doubtful(*, strict: bool = False) -> tuple[Parent, list[str]]:
    notes: list[str] = []
    of = Parent(ROOT, NOW, replaying=True, policy=Policy(strict=strict), tell_user=notes.append)
    return of, notes


def test_an_item_that_a_later_record_settles_is_neither_reported_nor_sent_again() -> None:
    for made_first in (True, False):
        of, notes = doubtful(strict=True)
        made = call(of, 0, 2) if made_first else None
        page(of, outcomes(0, 0, 2, salt=1), last=False)
        page(of, outcomes(0, 0, 2))
        made = made or call(of, 0, 2)
        assert (notes, asked(of)) == ([], [])
        assert value(made, 1) == b"Vvalue1"


def test_items_that_no_record_settles_are_reported_once_and_sent_again() -> None:
    for made_first in (True, False):
        of, notes = doubtful()
        if made_first:
            call(of, 0, 2)
        page(of, outcomes(0, 0, 2, salt=1), last=False)
        page(of, outcomes(0, 0, 1))
        if not made_first:
            call(of, 0, 2)
        assert len(notes) == 1
        assert "0.0[1]" in notes[0]
        assert asked(of) == [(0, 1, 2, True)]


def test_a_strict_parent_raises_at_every_access_and_makes_no_calls() -> None:
    of, _ = doubtful(strict=True)
    call(of, 0, 2)
    for _ in range(2):
        with pytest.raises(ReplayDivergedError, match="its arguments differ"):
            page(of, outcomes(0, 0, 2, salt=1))
    assert asked(of) == []
    assert of.judge.refusal is not None, "it stands for whoever asks next"
