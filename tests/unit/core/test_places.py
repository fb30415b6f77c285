"""The places of a run as a machine (PL1 to PL8): life of a unit, back-off, quarantine, stops."""

from __future__ import annotations

import itertools
from math import inf
from typing import TypeVar

import pytest

from resilient_scoop.core import places
from resilient_scoop.core.places import (
    _ANSWERS,
    _CALLS,
    _NEXT,
    Action,
    AgentCame,
    AgentLeft,
    AgentLost,
    Began,
    DropTag,
    EndPlaces,
    EndUnits,
    Event,
    Failed,
    Find,
    GiveUp,
    HostDrained,
    HostRevoked,
    HostSlot,
    Look,
    NeverCame,
    NotStopped,
    PlaceCall,
    PlaceConfig,
    PlaceRecord,
    Places,
    PlacesConfig,
    PlaceState,
    PlacesTicked,
    Quarantined,
    ShowNote,
    Sight,
    StartAccepted,
    StartUnit,
    Stopped,
    StopUnits,
    TagWritten,
    TooFew,
    UnitEvent,
    UnitsFound,
    UnitsLooked,
    Unreached,
    WriteTag,
    WrittenTag,
)

_A = TypeVar("_A")


class Shell:
    """A machine whose places answer as a test requests."""

    def __init__(
        self,
        *hosts: str,
        tags: tuple[WrittenTag, ...] = (),
        queue: tuple[str, ...] = (),
        min_hosts: int = 0,
    ) -> None:
        config = [PlaceConfig(host, (host,)) for host in hosts]
        config += [PlaceConfig("queue", queue)] if queue else []
        self.machine = Places(PlacesConfig("r", tuple(config), min_hosts=min_hosts))
        self.now = 100.0
        self.count = 0
        self.seen: list[Action] = []
        self.open: list[WriteTag | Look | Find] = []  # not answered yet
        self.step(Began(tags))

    def step(self, event: Event) -> list[Action]:
        call = event.call if isinstance(event, Failed) else _ANSWERS.get(type(event))
        self.open = [each for each in self.open if call is None or _CALLS[type(each)] is not call]
        actions = self.machine.step(event, self.now)
        if not self.machine.left:
            self.machine.check()
        self.seen += actions
        self.open += [action for action in actions if isinstance(action, WriteTag | Look | Find)]
        return actions

    def tick(self, seconds: float = 0.0) -> list[Action]:
        self.now += seconds
        self.count += 1
        return self.step(PlacesTicked(f"{self.count:04x}"))

    def to(self, kind: type[_A], within_s: float = 1000.0) -> _A:
        """Let time pass until an action; answer looks and searches with `unknown` meanwhile."""
        until = self.now + within_s
        while True:
            for action in self.open:
                if isinstance(action, kind):
                    return action
                self.answer(action)
            due = self.machine.deadline()
            assert due < inf, "nothing is due"
            assert due <= until, f"{kind.__name__} comes late"
            self.now = max(self.now, due)
            for found in self.tick():
                if isinstance(found, kind):
                    return found

    def answer(self, action: Action) -> None:
        if isinstance(action, Look):
            self.say(PlaceState.UNKNOWN)
        elif isinstance(action, Find):
            self.step(Failed(action.host, action.tag, PlaceCall.FIND, "no route"))

    def slot(self, host: str = "a") -> HostSlot:
        return self.machine.slots[host]

    def started(self, host: str = "a", units: int = 1) -> list[Action]:
        """Let a start succeed."""
        wanted = [action for action in self.tick() if isinstance(action, WriteTag)]
        assert host in {action.host for action in wanted}
        tag = self.slot(host).tag
        self.step(TagWritten(host, tag))
        return self.step(StartAccepted(host, tag, tuple(f"{tag}.{n}" for n in range(units))))

    def say(self, state: PlaceState, host: str = "a", why: str = "") -> list[Action]:
        """Answer the present look, or the next one."""
        slot = self.slot(host)
        if slot.call is not PlaceCall.LOOK:
            self.now = max(self.now, slot.look_at)
            assert any(isinstance(action, Look) for action in self.tick())
        seen = tuple(Sight(unit, state, why) for unit in slot.units)
        return self.step(UnitsLooked(host, slot.tag, seen))

    def fail(self, call: PlaceCall, host: str = "a", *, refused: bool = False) -> list[Action]:
        return self.step(Failed(host, self.slot(host).tag, call, "no", refused=refused))

    def come(self, host: str = "a") -> None:
        self.started(host)
        self.step(AgentCame(host))


def notes(actions: list[Action]) -> list[places.Note]:
    return [action.note for action in actions if isinstance(action, ShowNote)]


def of(actions: list[Action], kind: type[_A]) -> list[_A]:
    return [action for action in actions if isinstance(action, kind)]


@pytest.mark.parametrize(("state", "happening"), list(itertools.product(PlaceState, UnitEvent)))
def test_a_host_slot_changes_state_only_as_its_table_says(
    state: PlaceState, happening: UnitEvent
) -> None:
    slot = HostSlot("a", PlaceRecord("a"), state)
    if happening in _NEXT[state]:
        slot.enter(happening)
        assert slot.state is _NEXT[state][happening]
    else:
        with pytest.raises(AssertionError, match=f"a is {state.name} at {happening.name}"):
            slot.enter(happening)


def test_the_table_in_the_docstring_equals_that_of_the_code() -> None:
    text = (places.__doc__ or "").replace(
        "as it was", "NEVER_CAME"
    )  # or GONE: see `HostSlot.enter`
    lines = [line.split() for line in text.splitlines()]
    (head,) = [words[1:] for words in lines if words[:1] == ["state"]]
    rows = {
        words[0]: words[1:]
        for words in lines
        if words and words[0] in PlaceState.__members__ and len(words) == len(head) + 1
    }
    table = {
        PlaceState[state]: {
            UnitEvent[event]: PlaceState[after]
            for event, after in zip(head, row, strict=True)
            if after != "-"
        }
        for state, row in rows.items()
    }
    assert table == _NEXT


def test_a_unit_is_started_after_its_tag_is_written() -> None:
    shell = Shell("a")
    (write,) = of(shell.tick(), WriteTag)

    assert not of(shell.tick(10.0), StartUnit)
    assert of(shell.step(TagWritten("a", write.tag)), StartUnit) == [StartUnit("a", write.tag)]


def test_a_tag_that_cannot_be_written_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    shell = Shell("a")
    (write,) = of(shell.tick(), WriteTag)
    shell.fail(PlaceCall.WRITE)

    again = shell.to(WriteTag)

    assert again.tag != write.tag
    assert not of(shell.seen, StartUnit)


def test_a_unit_runs_when_its_agent_has_connected_and_not_when_its_place_reports_it() -> None:
    shell = Shell("a")
    shell.started()
    shell.say(PlaceState.RUNNING)
    assert shell.slot().state is PlaceState.STARTING

    shell.step(AgentCame("a"))
    shell.say(PlaceState.GONE)
    assert shell.slot().state is PlaceState.RUNNING


def test_a_unit_that_never_came_is_reported_once_and_started_again() -> None:
    shell = Shell("a")
    shell.started()
    (note,) = notes(shell.say(PlaceState.NEVER_CAME, why="no python"))
    assert isinstance(note, NeverCame)
    assert note.why == "no python"

    shell.to(WriteTag)
    shell.step(TagWritten("a", shell.slot().tag))
    shell.step(StartAccepted("a", shell.slot().tag, ("u",)))

    assert notes(shell.say(PlaceState.NEVER_CAME, why="no python")) == []
    assert shell.slot().state is PlaceState.NEVER_CAME


def test_waits_after_failures_grow_and_stay_within_their_jitter() -> None:
    shell = Shell("a")
    waits = []
    for jitter in (0.0, 0.5, 0.0, 1.0, 1.0):
        shell.to(WriteTag)
        tag = shell.slot().tag
        shell.step(TagWritten("a", tag))
        shell.step(
            Failed("a", tag, PlaceCall.START, "no", refused=False, unasked=True, jitter=jitter)
        )
        began = shell.now
        waits.append(shell.machine.deadline() - began)
    assert waits == pytest.approx([1.0, 15 * 1.25, 30.0, 90.0, 90.0])


def test_a_refusal_waits_five_minutes() -> None:
    shell = Shell("a")
    shell.tick()
    shell.step(TagWritten("a", shell.slot().tag))
    shell.fail(PlaceCall.START, refused=True)

    assert shell.slot().state is PlaceState.NEVER_CAME
    assert shell.machine.deadline() - shell.now == places.REFUSED_S


def test_the_tag_of_a_start_without_an_answer_is_searched_before_another_start() -> None:
    shell = Shell("a")
    shell.tick()
    tag = shell.slot().tag
    shell.step(TagWritten("a", tag))
    shell.fail(PlaceCall.START)
    assert shell.slot().state is PlaceState.UNKNOWN

    find = shell.to(Find)
    assert find.tag == tag
    shell.step(UnitsFound("a", tag, ()))
    assert shell.slot().state is PlaceState.NEVER_CAME
    assert shell.to(WriteTag).tag != tag


def test_a_found_unit_is_started_again_under_its_tag() -> None:
    shell = Shell("a")
    shell.tick()
    tag = shell.slot().tag
    shell.step(TagWritten("a", tag))
    shell.fail(PlaceCall.START)
    shell.to(Find)

    assert of(shell.step(UnitsFound("a", tag, ("u",))), StartUnit) == [StartUnit("a", tag)]


def test_the_end_of_a_second_start_does_not_prove_the_end_of_the_unit() -> None:
    # Given a lost agent that was found and started again
    shell = Shell("a")
    shell.come()
    tag = shell.slot().tag
    shell.step(AgentLost("a"))
    shell.to(Find)
    shell.step(UnitsFound("a", tag, ("u",)))
    shell.step(StartAccepted("a", tag, ("v",)))

    # When its place reports that this start failed
    shell.say(PlaceState.NEVER_CAME)

    # Then the tag is searched
    assert shell.slot().state is PlaceState.UNKNOWN
    assert shell.to(Find).tag == tag


def test_a_unit_in_state_unknown_never_counts_as_ended() -> None:
    shell = Shell("a")
    shell.come()
    shell.step(AgentLost("a"))
    with pytest.raises(AssertionError, match="comes late"):
        shell.to(WriteTag, within_s=10_000.0)


def test_a_lost_agent_may_return_by_itself() -> None:
    shell = Shell("a")
    shell.come()
    shell.step(AgentLost("a"))
    shell.say(PlaceState.UNKNOWN)
    assert shell.slot().state is PlaceState.UNKNOWN

    shell.step(AgentCame("a"))
    assert shell.slot().state is PlaceState.RUNNING
    assert len(of(shell.seen, StartUnit)) == 1


def test_an_agent_that_connects_while_the_next_tag_is_written_keeps_its_own() -> None:
    # Given a place that reports that a unit never came
    shell = Shell("a")
    shell.started()
    tag = shell.slot().tag
    shell.say(PlaceState.NEVER_CAME)
    new = shell.to(WriteTag).tag

    # When its agent connects after all
    shell.step(AgentCame("a"))
    assert shell.slot().tag == tag

    # Then its tag is written again, and no unit is started
    actions = shell.step(TagWritten("a", new))
    assert actions == [WriteTag("a", tag)]
    shell.step(TagWritten("a", tag))
    assert len(of(shell.seen, StartUnit)) == 1


def test_an_agent_that_does_not_reach_the_broker_is_reported_and_its_tag_is_searched() -> None:
    shell = Shell("a")
    shell.started()
    while not notes(said := shell.say(PlaceState.RUNNING)):
        assert shell.now < 200.0
    assert notes(said) == [Unreached("a", has_come=False)]
    assert not of(shell.seen, StopUnits)
    shell.to(Find)


def test_a_unit_that_waits_in_a_queue_is_left_alone() -> None:
    shell = Shell("a")
    shell.started()
    while shell.now < 100_000.0:
        shell.say(PlaceState.WAITING)
    assert not of(shell.seen, Find)
    assert not of(shell.seen, StopUnits)


def test_the_tag_of_a_start_that_takes_very_long_is_searched() -> None:
    shell = Shell("a")
    shell.started()
    while shell.slot().state is PlaceState.STARTING:
        shell.say(PlaceState.STARTING)
    assert shell.now == pytest.approx(100.0 + places.BEGIN_S_MAX, abs=10.0)
    shell.to(Find)


def test_written_tags_are_searched_before_anything_is_started() -> None:
    shell = Shell("a", "b", tags=(WrittenTag("a", "old"),))
    assert of(shell.seen, Find) == [Find("a", "old")]
    assert {action.host for action in of(shell.tick(), WriteTag)} == {"b"}


def test_a_search_right_after_a_restart_is_repeated_before_it_counts() -> None:
    shell = Shell("a", tags=(WrittenTag("a", "old"),))
    shell.step(UnitsFound("a", "old", ()))
    assert shell.slot().state is PlaceState.UNKNOWN

    began = shell.now
    shell.to(Find)
    assert shell.now - began == places.FIND_S
    shell.step(UnitsFound("a", "old", ()))
    assert shell.slot().place.fails == 0, "it may have ended long ago"
    shell.to(WriteTag)


def test_a_tag_of_a_host_that_is_not_named_is_reported() -> None:
    shell = Shell("a", tags=(WrittenTag("gone", "old"),))
    assert notes(shell.seen) == [places.Unnamed("gone")]


def test_a_search_counts_at_once_when_the_last_start_has_ended_for_its_place() -> None:
    # Given an agent of an earlier process of the places, which got another ticket
    shell = Shell("a", tags=(WrittenTag("a", "old"),))
    shell.step(UnitsFound("a", "old", ("u",)))
    shell.step(StartAccepted("a", "old", ("v",)))
    shell.step(EndUnits(10.0))
    shell.step(Stopped("a", "old"))

    # When its place reports its end, and a search finds nothing
    shell.say(PlaceState.GONE)
    assert of(shell.seen, Find)[-1] == Find("a", "old")
    actions = shell.step(UnitsFound("a", "old", ()))

    # Then it counts as ended
    assert of(actions, EndPlaces)


def test_a_search_does_not_count_at_once_after_a_start_without_an_answer() -> None:
    shell = Shell("a", tags=(WrittenTag("a", "old"),))
    shell.step(UnitsFound("a", "old", ("u",)))
    shell.fail(PlaceCall.START)
    shell.say(PlaceState.GONE)
    began = shell.now
    shell.to(Find)
    shell.step(UnitsFound("a", "old", ()))
    shell.to(Find)
    assert shell.now - began > places.FIND_S - 1.0


def test_one_unit_of_a_queue_is_tried_before_the_others() -> None:
    shell = Shell(queue=("q1", "q2", "q3"))
    assert len(of(shell.tick(), WriteTag)) == 1
    shell.step(TagWritten("q1", shell.slot("q1").tag))
    shell.step(StartAccepted("q1", shell.slot("q1").tag, ("u1",)))
    assert not of(shell.tick(), WriteTag)

    shell.step(AgentCame("q1"))
    assert {action.host for action in of(shell.tick(), WriteTag)} == {"q2", "q3"}


def test_after_a_failure_of_a_queue_one_unit_is_tried_again() -> None:
    shell = Shell(queue=("q1", "q2", "q3"))
    shell.come("q1")
    shell.started("q2")
    shell.say(PlaceState.NEVER_CAME, "q2")
    assert shell.slot("q3").state is PlaceState.WRITING
    shell.step(TagWritten("q3", shell.slot("q3").tag))
    shell.step(StartAccepted("q3", shell.slot("q3").tag, ("u3",)))

    assert not of(shell.tick(60.0), WriteTag)
    shell.step(AgentCame("q3"))
    assert [action.host for action in of(shell.tick(), WriteTag)] == ["q2"]


def test_a_place_that_starts_twice_is_asked_to_stop_one() -> None:
    shell = Shell("a")
    actions = shell.started(units=2)
    tag = shell.slot().tag
    (stop,) = of(actions, StopUnits)
    assert stop.units == (f"{tag}.1",)
    assert shell.slot().units == (f"{tag}.0",)

    # And it is asked again, if that failed
    shell.fail(PlaceCall.STOP)
    assert shell.to(StopUnits, within_s=2.0).units == (f"{tag}.1",)


def test_after_a_double_start_only_a_search_proves_that_the_tag_has_ended() -> None:
    shell = Shell("a")
    shell.started(units=2)
    shell.step(Stopped("a", shell.slot().tag))
    shell.say(PlaceState.NEVER_CAME)
    assert shell.slot().state is PlaceState.UNKNOWN
    shell.to(Find)


def linked_after_a_lost_answer() -> Shell:
    """Return a machine that knows one unit, whose agent has connected; its place may have started two."""
    shell = Shell("a", tags=(WrittenTag("a", "t"),))
    shell.to(Find)
    shell.step(UnitsFound("a", "t", ("u0",)))
    shell.fail(PlaceCall.START)
    shell.step(AgentCame("a"))
    assert shell.slot().units == ("u0",)
    return shell


def test_a_second_unit_of_a_lost_answer_is_searched_when_its_agent_has_connected() -> None:
    shell = linked_after_a_lost_answer()
    shell.to(Find, within_s=places.FIND_S + 1.0)
    actions = shell.step(UnitsFound("a", "t", ("u0", "u1")))

    (stop,) = of(actions, StopUnits)
    assert stop.units == ("u1",)
    shell.step(Stopped("a", "t"))
    with pytest.raises(AssertionError, match="comes late"):
        shell.to(Find, within_s=600.0)


def test_a_search_for_a_second_unit_that_fails_or_finds_nothing_is_repeated_and_not_reported() -> (
    None
):
    shell = linked_after_a_lost_answer()
    reported = of(shell.seen, ShowNote)
    shell.to(Find)
    shell.fail(PlaceCall.FIND)
    for _ in range(places.FINDS_MAX - 1):
        shell.to(Find)
        shell.step(UnitsFound("a", "t", ()))

    assert of(shell.seen, ShowNote) == reported
    assert shell.slot().is_counted


def lose(shell: Shell, times: int) -> None:
    for _ in range(times):
        shell.step(AgentCame("a"))
        shell.step(AgentLost("a"))
        shell.say(PlaceState.GONE)
        if shell.slot().quarantine_until > shell.now:
            return
        shell.to(WriteTag)
        shell.step(TagWritten("a", shell.slot().tag))
        shell.step(StartAccepted("a", shell.slot().tag, ("u",)))


def test_a_host_that_is_lost_often_is_quarantined_for_a_limited_time() -> None:
    shell = Shell("a")
    shell.started()
    lose(shell, places.LOSSES_MAX)

    assert [type(note) for note in notes(shell.seen)] == [Quarantined]
    assert shell.machine.hosts(shell.now)[0].quarantine_s == pytest.approx(places.QUARANTINE_S)
    began = shell.now
    shell.to(WriteTag)
    assert shell.now - began == pytest.approx(places.QUARANTINE_S)


def test_quarantines_grow_up_to_a_limit() -> None:
    shell = Shell("a")
    shell.started()
    seconds = []
    for _ in range(6):
        lose(shell, places.LOSSES_MAX)
        seconds.append(shell.slot().quarantine_until - shell.now)
        shell.to(WriteTag, within_s=4000.0)
        shell.step(TagWritten("a", shell.slot().tag))
        shell.step(StartAccepted("a", shell.slot().tag, ("u",)))
    assert seconds == pytest.approx([300, 600, 1200, 2400, 3600, 3600])


def test_a_host_that_is_lost_rarely_is_not_quarantined() -> None:
    shell = Shell("a")
    shell.started()
    for _ in range(10):
        lose(shell, 1)
        shell.now += places.FLAP_S
    assert not notes(shell.seen)


def test_a_host_whose_agent_left_is_not_used_again_at_once() -> None:
    shell = Shell("a")
    shell.come()
    shell.step(AgentLeft("a"))
    shell.say(PlaceState.GONE)
    began = shell.now
    shell.to(WriteTag)
    assert shell.now - began == pytest.approx(places.LEFT_AGAIN_S, abs=1.0)
    assert not notes(shell.seen)


def test_a_drained_agent_leaves_by_itself_and_is_not_replaced() -> None:
    shell = Shell("a")
    shell.come()
    shell.step(HostDrained("a"))
    shell.step(AgentLeft("a"))
    shell.say(PlaceState.GONE)
    assert shell.machine.deadline() == inf
    assert not of(shell.seen, StopUnits)
    assert len(of(shell.seen, DropTag)) == 1


@pytest.mark.parametrize("event", [HostDrained("a"), HostRevoked("a")])
def test_a_unit_that_starts_is_stopped_when_its_host_is_drained_or_revoked(event: Event) -> None:
    shell = Shell("a")
    shell.started()
    assert of(shell.step(event), StopUnits)
    shell.step(Stopped("a", shell.slot().tag))
    shell.say(PlaceState.NEVER_CAME)
    assert shell.machine.deadline() == inf
    assert not notes(shell.seen)


def test_a_revoked_agent_is_stopped_at_once() -> None:
    shell = Shell("a")
    shell.come()
    (stop,) = of(shell.step(HostRevoked("a")), StopUnits)
    assert stop.grace_s == places.REVOKED_GRACE_S


def test_a_stop_ends_when_all_units_have_ended() -> None:
    shell = Shell("a", "b")
    shell.come("a")
    shell.step(TagWritten("b", shell.slot("b").tag))
    shell.step(StartAccepted("b", shell.slot("b").tag, ("u",)))

    stops = of(shell.step(EndUnits(3.0)), StopUnits)
    assert [(stop.host, stop.grace_s) for stop in stops] == [("a", 3.0), ("b", 3.0)]
    shell.say(PlaceState.GONE, "a")
    assert not shell.machine.left
    assert of(shell.say(PlaceState.NEVER_CAME, "b"), EndPlaces)


def test_a_stop_of_a_unit_that_its_place_knows_needs_one_look() -> None:
    shell = Shell("a")
    shell.come()
    shell.step(AgentLeft("a"))
    shell.say(PlaceState.RUNNING)
    shell.step(EndUnits(3.0))

    actions = shell.step(Stopped("a", shell.slot().tag))

    assert of(actions, Look)
    assert of(shell.say(PlaceState.GONE), EndPlaces)
    assert not of(shell.seen, Find)


def test_an_agent_that_connects_after_its_end_does_not_delay_a_stop() -> None:
    shell = Shell("a", "b")
    shell.come("b")
    shell.step(TagWritten("a", shell.slot("a").tag))
    shell.step(StartAccepted("a", shell.slot("a").tag, ("u",)))
    shell.say(PlaceState.NEVER_CAME, "a")
    shell.step(EndUnits(3.0))
    shell.step(AgentCame("a"))
    assert of(shell.say(PlaceState.GONE, "b"), EndPlaces)


def test_a_stop_keeps_the_tag_of_a_double_start_whose_other_unit_left() -> None:
    shell = Shell("a")
    shell.started(units=2)
    tag = shell.slot().tag
    shell.step(Stopped("a", tag))
    shell.step(AgentCame("a"))
    shell.step(AgentLeft("a"))
    shell.step(EndUnits(3.0))

    actions = shell.say(PlaceState.UNKNOWN)

    assert not of(actions, DropTag)
    assert not shell.machine.left
    shell.now = shell.machine.stop_at
    assert notes(shell.tick()) == [NotStopped(("a",))]


def test_an_early_search_after_a_double_start_does_not_count_when_one_unit_has_left() -> None:
    shell = Shell("a")
    shell.started(units=2)
    shell.step(AgentCame("a"))
    shell.step(AgentLeft("a"))
    shell.step(EndUnits(30.0))
    find = shell.to(Find)
    shell.step(UnitsFound("a", find.tag, ()))
    assert not of(shell.seen, DropTag)


@pytest.mark.parametrize("is_seen", [True, False])
def test_a_stop_searches_for_an_agent_that_was_seen_after_it_left(*, is_seen: bool) -> None:
    shell = Shell("a")
    shell.come()
    shell.step(AgentLeft("a"))
    if is_seen:
        shell.say(PlaceState.RUNNING)
    shell.step(EndUnits(3.0))
    actions = shell.say(PlaceState.UNKNOWN)
    assert bool(of(actions, DropTag)) is not is_seen


def test_a_stop_searches_for_an_agent_that_was_found_after_it_left() -> None:
    shell = Shell("a")
    shell.come()
    shell.step(AgentLeft("a"))
    find = shell.to(Find)
    shell.step(EndUnits(3.0))
    shell.step(UnitsFound("a", find.tag, ("u",)))
    assert not of(shell.say(PlaceState.UNKNOWN), DropTag)


def test_a_start_whose_answer_arrives_after_an_agent_left_may_have_started_another_one() -> None:
    shell = Shell("a")
    shell.tick()
    tag = shell.slot().tag
    shell.step(TagWritten("a", tag))
    shell.step(AgentCame("a"))
    shell.step(AgentLeft("a"))
    shell.step(StartAccepted("a", tag, ("u",)))
    shell.step(EndUnits(3.0))
    assert not of(shell.say(PlaceState.UNKNOWN), DropTag)


def test_a_stop_without_units_ends_at_once() -> None:
    assert Shell("a").step(EndUnits(3.0)) == [EndPlaces()]


def test_a_stop_during_a_start_stops_the_unit_when_it_was_started() -> None:
    shell = Shell("a")
    shell.tick()
    tag = shell.slot().tag
    shell.step(TagWritten("a", tag))
    assert not of(shell.step(EndUnits(3.0)), StopUnits)

    assert of(shell.step(StartAccepted("a", tag, ("u",))), StopUnits)


def test_a_tag_that_is_written_during_a_stop_is_not_started() -> None:
    shell = Shell("a")
    (write,) = of(shell.tick(), WriteTag)
    shell.step(EndUnits(3.0))
    assert shell.step(TagWritten("a", write.tag)) == [DropTag("a", write.tag), EndPlaces()]


def test_a_stop_has_a_deadline_whatever_places_do() -> None:
    shell = Shell("a")
    shell.started()
    shell.step(EndUnits(3.0))
    shell.now = shell.machine.stop_at
    actions = shell.tick()
    assert notes(actions) == [NotStopped(("a",))]
    assert of(actions, EndPlaces)


def test_a_stop_that_fails_is_repeated() -> None:
    shell = Shell("a")
    shell.started()
    shell.step(EndUnits(3.0))
    shell.fail(PlaceCall.STOP)
    shell.to(StopUnits, within_s=2.0)


def test_a_run_with_too_few_hosts_is_given_up_at_its_deadline() -> None:
    shell = Shell("a", "b", min_hosts=2)
    shell.come("a")
    first = next(
        note for _ in range(200) for note in notes(shell.tick(1.0)) if isinstance(note, TooFew)
    )
    assert (first.have, first.wanted, first.missing) == (1, 2, ("b",))
    give_up = shell.to(GiveUp)
    assert give_up == GiveUp(1, 2, ("b",))
    assert shell.now == pytest.approx(100.0 + 120.0, abs=1.0)


def test_a_run_is_given_up_at_once_when_too_many_hosts_are_refused_for_good() -> None:
    shell = Shell("a", "b", min_hosts=2)
    shell.come("a")
    shell.step(TagWritten("b", shell.slot("b").tag))
    actions = shell.fail(PlaceCall.START, "b", refused=True)

    assert of(actions, GiveUp) == [GiveUp(1, 2, ("b",))]
    shell.step(AgentLost("a"))
    shell.say(PlaceState.UNKNOWN, "a")
    shell.to(Find)
    assert not of(shell.fail(PlaceCall.FIND, "a", refused=True), GiveUp)
    assert not of(shell.tick(200.0), GiveUp)


@pytest.mark.parametrize("lasting", [True, False])
def test_a_run_is_given_up_at_once_when_its_only_agent_is_refused_for_good(
    lasting: bool,  # noqa: FBT001
) -> None:
    shell = Shell("a", min_hosts=1)
    shell.started()
    slot = shell.slot()
    shell.tick(places.LOOK_S)
    sight = Sight(slot.units[0], PlaceState.NEVER_CAME, "it has no folder /x", lasting=lasting)

    actions = shell.step(UnitsLooked("a", slot.tag, (sight,)))

    assert of(actions, GiveUp) == [GiveUp(0, 1, ("a",))] * lasting
    (note,) = [each for each in notes(actions) if isinstance(each, NeverCame)]
    assert (note.again_s == inf) == lasting


def test_a_refusal_that_leaves_enough_hosts_does_not_end_the_run() -> None:
    shell = Shell("a", "b", min_hosts=1)
    shell.tick()
    shell.step(TagWritten("b", shell.slot("b").tag))
    assert not of(shell.fail(PlaceCall.START, "b", refused=True), GiveUp)


def test_a_host_that_has_connected_once_counts_even_if_it_is_lost() -> None:
    shell = Shell("a", min_hosts=1)
    shell.come("a")
    shell.step(AgentLost("a"))
    for _ in range(200):
        for action in shell.tick(1.0):
            assert not isinstance(action, GiveUp)
            shell.answer(action)
