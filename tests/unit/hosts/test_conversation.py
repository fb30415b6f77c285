"""The messages of an agent's program, from its start to its end: each state with each event."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from resilient_scoop.hosts.base import UnitState
from resilient_scoop.hosts.conversation import NOISE_LINES, PREFIX, Conversation, EndedAgent

STARTING, RUNNING, GONE = UnitState.STARTING, UnitState.RUNNING, UnitState.GONE
NEVER_CAME, UNKNOWN = UnitState.NEVER_CAME, UnitState.UNKNOWN
Event = Callable[[Conversation], object]


def say(text: str) -> Event:
    return lambda talk: talk.line(f"rscoop-host: {text}")


EVENTS: dict[str, Event] = {
    "starting": say('{"state": "starting"}'),
    "running": say('{"state": "running", "host": "ws1", "pid": 7}'),
    "refused": say('{"state": "refused", "why": "too old"}'),
    "ended": say('{"state": "ended", "why": "asked to"}'),
    "exits": lambda talk: talk.exited(0),
    "fails": lambda talk: talk.exited(9),
    "dies": lambda talk: talk.exited(None),
    "lost": lambda talk: talk.lost("the connection was lost"),
    "late": lambda talk: talk.give_up(1000.0),
    "noise": lambda talk: talk.line("Welcome"),
}
WAYS: dict[UnitState, list[str]] = {
    STARTING: [], RUNNING: ["running"], GONE: ["running", "ended"], NEVER_CAME: ["refused"],
    UNKNOWN: ["lost"],
}  # fmt: skip
NEXT = {
    (STARTING, "running"): RUNNING,
    (STARTING, "refused"): NEVER_CAME,
    (STARTING, "ended"): NEVER_CAME,
    (STARTING, "exits"): NEVER_CAME,
    (STARTING, "fails"): NEVER_CAME,
    (STARTING, "dies"): NEVER_CAME,
    (STARTING, "lost"): UNKNOWN,
    (STARTING, "late"): UNKNOWN,
    (RUNNING, "ended"): GONE,
    (RUNNING, "exits"): GONE,
    (RUNNING, "fails"): GONE,
    (RUNNING, "dies"): GONE,
    (RUNNING, "lost"): UNKNOWN,
}


def talk_in(state: UnitState) -> Conversation:
    talk = Conversation("ws1", start_s=60.0, now=0.0)
    for name in WAYS[state]:
        EVENTS[name](talk)
    assert talk.seen().state is state
    return talk


@pytest.mark.parametrize("state", WAYS)
@pytest.mark.parametrize("event", EVENTS)
def test_each_event_changes_each_state_as_the_table_says(state: UnitState, event: str) -> None:
    talk = talk_in(state)
    EVENTS[event](talk)
    after = NEXT.get((state, event), state)
    assert talk.seen().state is after
    assert talk.ended.is_set() == (after in {GONE, NEVER_CAME, UNKNOWN})
    assert talk.is_over == (after in {GONE, NEVER_CAME})
    assert talk.is_lost == (after is UNKNOWN)


@pytest.mark.parametrize(
    ("event", "why"),
    [
        ("refused", "too old"),
        ("fails", "ended with exit status 9"),
        ("dies", "was killed by a signal"),
        ("late", "has not said that it runs 60 s after its start"),
    ],
)
def test_a_failed_start_gives_the_reason(event: str, why: str) -> None:
    talk = talk_in(STARTING)
    EVENTS[event](talk)
    assert why in talk.seen().why


@pytest.mark.parametrize("status", [126, 127])
def test_a_shell_that_finds_no_python_is_reported_as_such(status: int) -> None:
    talk = talk_in(STARTING)
    talk.exited(status)
    assert "could not start Python" in talk.seen().why
    assert "--python" in talk.seen().why


def test_a_start_is_not_given_up_within_its_time_limit() -> None:
    assert not talk_in(STARTING).give_up(59.0)


def test_the_last_lines_of_noise_are_kept_in_a_short_form() -> None:
    talk = talk_in(STARTING)
    for number in range(100):
        talk.line(f"line {number}\r")
    talk.line("x" * 5000)
    talk.line("   ")
    talk.exited(1)
    lines = talk.seen().log.splitlines()
    assert len(lines) == NOISE_LINES
    assert lines[0] == "line 81"
    assert len(lines[-1]) == 400


@pytest.mark.parametrize(
    "text",
    ["rscoop-host: fine", "rscoop-host: [1]", 'rscoop-host: {"state": "happy"}', "rscoop-host:",
     'rscoop-host: {"state": "running", "pid": "7"}'],
)  # fmt: skip
def test_a_line_that_is_not_understood_is_noise(text: str) -> None:
    talk = talk_in(STARTING)
    talk.line(text)
    assert talk.seen().state is STARTING
    assert talk.seen().log == text


def test_noise_without_a_line_end_before_a_message_is_split_from_it() -> None:
    talk = talk_in(STARTING)
    talk.line('quota 17 %rscoop-host: {"state": "running"}')
    assert talk.seen().state is RUNNING
    talk.exited(1)
    assert talk.seen().log == "quota 17 %"


@pytest.mark.parametrize("before", [[], ['{"state": "running"}'], ['{"state": "ended"}']])
def test_the_end_of_an_agent_is_passed_on_in_any_state(before: list[str]) -> None:
    heard: list[EndedAgent] = []
    talk = Conversation("ws1", start_s=60.0, now=0.0, hear_over=heard.append)
    for text in before:
        talk.line(PREFIX + text)
    state = talk.seen()

    talk.line(PREFIX + '{"state": "over", "agent": "61ff", "died": true}')

    assert heard == [EndedAgent("61ff", died=True)]
    assert talk.seen() == state


@pytest.mark.parametrize("agent", ["", "61 62", "6g", "a" * 65, "../x"])
def test_the_end_of_an_agent_without_a_proper_name_is_not_passed_on(agent: str) -> None:
    heard: list[EndedAgent] = []
    talk = Conversation("ws1", start_s=60.0, now=0.0, hear_over=heard.append)
    talk.line(PREFIX + json.dumps({"state": "over", "agent": agent}))
    assert heard == []


@pytest.mark.parametrize(("more", "lasting"), [("", False), (', "lasting": true', True)])
def test_a_refusal_is_temporary_or_final(more: str, lasting: bool) -> None:  # noqa: FBT001
    talk = Conversation("ws1", start_s=60.0, now=0.0)
    talk.line(PREFIX + '{"state": "refused", "why": "no folder"' + more + "}")
    assert (talk.seen().state, talk.seen().lasting) == (NEVER_CAME, lasting)
