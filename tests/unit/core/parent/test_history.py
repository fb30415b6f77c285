"""A parent's history: pages in order, observations without gaps (P2)."""

from __future__ import annotations

import pytest

from resilient_scoop.core.parent.history import (
    HistoryPhase,
    ParentHistory,
    Question,
    Turn,
    rewind_mark,
)
from resilient_scoop.ids import ROOT
from resilient_scoop.wire import messages as wire

NOW = wire.Attempt(2, 1)


def observation(
    no: int, kind: str = "done", at_call: int = 0, answer: bytes = b"a"
) -> wire.Observation:
    return wire.Observation(no, kind, at_call, answer)


def with_recorded(*observations: wire.Observation) -> ParentHistory:
    history = ParentHistory(replaying=True)
    history.add(observations)
    return history


def test_only_one_page_is_requested_at_a_time() -> None:
    history = ParentHistory(replaying=True)
    assert history.is_page_due(0, early=False)

    assert history.ask() == 1
    assert not history.is_page_due(0, early=False)

    assert history.begin_page(wire.History(ROOT, NOW, 7, last=False, calls=3, no=1))
    assert (history.after, history.known_calls) == (7, 3)
    assert history.is_page_due(0, early=False)


def test_a_page_of_an_older_request_is_refused() -> None:
    history = ParentHistory(replaying=True)
    history.ask()
    history.reconnect()
    history.ask()

    assert not history.begin_page(wire.History(ROOT, NOW, 7, last=True, calls=3, no=1))
    assert (history.after, history.page_asked) == (0, True)


def test_a_page_is_requested_early_when_half_of_the_last_one_is_used() -> None:
    history = with_recorded(observation(0), observation(1))
    history.ahead = 10

    assert not history.is_page_due(4, early=True)
    assert history.is_page_due(3, early=True)


def test_a_live_parent_requests_pages_only_after_its_broker_was_replaced() -> None:
    history = ParentHistory(replaying=False)
    assert not history.is_page_due(0, early=False)

    history.reconnect()

    assert history.catching_up
    assert history.is_page_due(0, early=False)


def test_observations_are_numbered_after_the_history_without_gaps() -> None:
    history = with_recorded(observation(0), observation(1, answer=b"b"))

    assert [history.use(Question("done"), 0), history.use(Question("done"), 0)] == [b"a", b"b"]
    assert history.use(Question("done"), 0) is None
    assert [history.new("done", 4, b"").no for _ in range(2)] == [2, 3]


def test_an_observation_that_a_log_holds_twice_is_used_once() -> None:
    history = with_recorded(observation(0), observation(1))
    history.add([observation(1), observation(2)])

    assert [each.no for each in history.recorded] == [0, 1, 2]


def test_an_observation_of_another_position_is_not_used() -> None:
    history = with_recorded(observation(0, "done", 3))

    assert history.differs(Question("done"), 2)
    assert history.use(Question("done"), 2) is None
    assert history.use(Question("poll"), 3) is None
    assert history.use(Question("done"), 3) == b"a"


def test_an_observation_about_something_else_is_not_used() -> None:
    history = with_recorded(observation(0, "done 0.1[0]", 3))

    assert history.use(Question("done", "0.2[0]"), 3) is None
    assert history.use(Question("done", "0.1[0]", lambda answer: answer == b"b"), 3) is None
    assert history.use(Question("done", "0.1[0]", lambda answer: answer == b"a"), 3) == b"a"


def test_an_observation_of_an_older_journal_does_not_say_what_it_is_about() -> None:
    history = with_recorded(observation(0, "done", 3), observation(1, "done 0.1[0]", 3))

    assert history.use(Question("done", "0.2[0]"), 3) == b"a"
    assert history.use(Question("done"), 3) is None


def test_an_answer_after_which_the_script_failed_is_asked_for_again() -> None:
    history = with_recorded(observation(0, answer=b"0"), observation(1, answer=b"0"))
    history.again = frozenset([1])

    assert not history.is_to_ask_again
    history.use(Question("done"), 0)
    assert history.is_to_ask_again


def test_the_last_answer_is_noted_if_what_was_asked_for_was_not_there() -> None:
    history, seen = with_recorded(observation(0, "result 0.0[0]", 1, b"0")), []
    history.use(Question("result", "0.0[0]"), 1)
    history.in_vain(1)
    for kind in ("callbacks", "rewind", "result 0.0[0]"):
        seen.append(history.vain)
        history.new(kind, 1, b"1")
    assert seen == [(0, 1)] * 3
    assert history.vain is None


def test_a_rewind_drops_what_was_recorded_before_the_mark() -> None:
    kind, answer = rewind_mark(observation(0))
    history = with_recorded(
        observation(0), observation(1), observation(2, kind, 1, answer), observation(3, "poll", 1)
    )

    assert history.rewind()
    assert [each.no for each in history.recorded] == [3]
    assert not history.rewind()


def test_numbers_of_dropped_observations_are_not_used_again() -> None:
    history = with_recorded(observation(0), observation(1), observation(2))

    history.give_up()

    assert not history.recorded
    assert history.new("done", 0, b"").no == 3


def test_skipping_to_an_observation_never_moves_back() -> None:
    history = with_recorded(observation(0), observation(1), observation(2))

    history.skip_to(2)
    history.skip_to(1)

    assert history.next_observation == 2
    assert [each.no for each in history.recorded] == [2]


def test_another_reading_waits_for_the_end_of_the_present_one() -> None:
    history = ParentHistory(replaying=True)
    history.after = 5
    history.read_again()
    assert (history.phase, history.after) == (HistoryPhase.REPLAYING_TWICE, 5)

    history.end_page()
    assert (history.phase, history.after) == (HistoryPhase.CATCHING_UP, 0)

    history.after = 5
    history.end_page()
    assert (history.phase, history.after) == (HistoryPhase.LIVE, 5)


@pytest.mark.parametrize("phase", HistoryPhase)
@pytest.mark.parametrize("turn", Turn)
def test_every_turn_in_every_phase_does_what_the_table_says(
    phase: HistoryPhase, turn: Turn
) -> None:
    history = ParentHistory(replaying=False)
    history.phase, history.after = phase, 5

    if (phase, turn) == (HistoryPhase.LIVE, Turn.LAST_PAGE):
        with pytest.raises(AssertionError, match="LIVE knows no LAST_PAGE"):
            history.turn(turn)
        return
    history.turn(turn)

    # A live parent never replays again, and a cut is final
    assert not (
        history.replaying and phase not in (HistoryPhase.REPLAYING, HistoryPhase.REPLAYING_TWICE)
    )
    assert (history.phase is HistoryPhase.CUT_OFF) == (
        HistoryPhase.CUT_OFF is phase or turn is Turn.CUT
    )
    # Catching up reads from the beginning; a request to read again waits for the present reading
    begins = turn is Turn.RECONNECTED or phase is not history.phase
    waits = history.phase is HistoryPhase.CATCHING_UP_TWICE and turn is Turn.READ_AGAIN
    assert history.after == (0 if history.catching_up and begins and not waits else 5)


@pytest.mark.parametrize("looks", [1, 2, 5])
def test_several_requests_read_the_history_once_more(looks: int) -> None:
    history = ParentHistory(replaying=True)
    for _ in range(looks):
        history.read_again()
    history.end_page()
    assert history.catching_up
    history.end_page()
    assert history.phase is HistoryPhase.LIVE


def test_a_history_that_was_cut_off_gives_no_answers() -> None:
    history = with_recorded(observation(0))
    history.ask()

    history.cut()

    assert not history.retelling
    assert not history.needs_page()
    assert not history.is_page_due(0, early=False)
