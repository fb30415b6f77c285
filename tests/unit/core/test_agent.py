"""The agent of a host as a machine (G1 to G7): life of a slot, blame, back-off, giving up, stops."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from math import inf

import pytest

from resilient_scoop.core import agent
from resilient_scoop.core.agent import (
    _NEXT,
    Agent,
    AgentConfig,
    Beat,
    DamagedCopies,
    Died,
    EndAgent,
    EndLeftovers,
    Exited,
    Forward,
    KillProcess,
    LauncherGone,
    NotKept,
    NotStarted,
    Received,
    SendLogs,
    Slot,
    SlotEvent,
    SlotState,
    Start,
    Started,
    Ticked,
    Transmit,
    WriteNote,
)
from resilient_scoop.core.endings import CANNOT_IMPORT, HOPELESS, REFUSED, START_AGAIN, STOPPED
from resilient_scoop.core.flight import Flight, OnCpu
from resilient_scoop.core.link import Link
from resilient_scoop.core.relay import PATIENCE_S, SETTLE_S, Relay, RelayConfig
from resilient_scoop.ids import PeerId
from resilient_scoop.wire import messages as wire

RUN = b"run of a"
ATTEMPT = wire.Attempt(1, 5)
READY = Flight(is_ready=True)
DONE = Flight(is_ready=True, has_ended=True)
BUSY = Flight(OnCpu(1, 5, "0", 2, 7, 0, 0), is_ready=True)


class Host:
    """An agent whose processes behave as a test requests."""

    def __init__(
        self,
        workers: int = 2,
        *,
        origin: bool = False,
        greeted: bool = True,
        orphan_timeout_s: float | None = None,
        relay: Relay | None = None,
    ) -> None:
        slots = [Slot("worker", f"w{n + 1}") for n in range(workers)]
        slots += [Slot("origin", "origin")] if origin else []
        config = AgentConfig(stop_grace_s=3.0, alive_s=0.5, orphan_timeout_s=orphan_timeout_s)
        self.machine = Agent(config, slots, node="n", name="agent", pid=7, run=RUN, relay=relay)
        self.now = 100.0
        self.broker = Link(RUN, 1)
        self.flights: dict[str, Flight] = {}
        self.count = 0
        self.seen: list[agent.Action] = []
        if greeted:
            self.greet()

    def greet(self) -> list[agent.Action]:
        return self.step(Received(self.broker.beat(), {}))

    def step(self, event: agent.Event) -> list[agent.Action]:
        actions = self.machine.step(event, self.now)
        self.machine.check()
        self.seen += actions
        return actions

    def tick(
        self, seconds: float = 0.0, states: dict[str, str] | None = None
    ) -> list[agent.Action]:
        self.now += seconds
        return self.step(Ticked(dict(self.flights), states))

    def started(self, *names: str) -> None:
        for name in names:
            self.count += 1
            self.flights[name] = READY
            self.step(Started(name, b"%s-%d" % (name.encode(), self.count), 1000 + self.count))

    def exit(
        self,
        name: str,
        code: int = -11,
        flight: Flight = READY,
        *,
        oom: bool = False,
        why: str = "",
    ) -> list[agent.Action]:
        self.flights.pop(name)
        return self.step(Exited(name, code, flight, oom, why))

    def hear(self, *messages: wire.Down) -> list[agent.Action]:
        return self.step(
            Received(self.broker.pack([wire.encode(m) for m in messages]), dict(self.flights))
        )

    def slot(self, name: str = "w1") -> Slot:
        return self.machine.slots[name]


def running(workers: int = 2, *, origin: bool = False) -> Host:
    """Return a host whose processes all run."""
    host = Host(workers, origin=origin)
    host.tick()
    host.started(*host.machine.slots)
    return host


def sent_up(actions: list[agent.Action]) -> list[wire.Up]:
    """Return the messages to the broker among actions."""
    return [
        wire.decode_up(frame)
        for each in actions
        if isinstance(each, Transmit)
        for frame in each.frames[1:]
    ]


def lost(actions: list[agent.Action]) -> wire.ProcessLost:
    (found,) = [each for each in sent_up(actions) if isinstance(each, wire.ProcessLost)]
    return found


def notes(actions: list[agent.Action]) -> list[agent.Note]:
    return [each.note for each in actions if isinstance(each, WriteNote)]


def of(kind: type, actions: list[agent.Action]) -> list[agent.Action]:
    return [each for each in actions if isinstance(each, kind)]


@pytest.mark.parametrize(
    ("state", "happening"),
    list(itertools.product(SlotState, SlotEvent)),
    ids=lambda each: each.name,
)
def test_a_slot_changes_state_only_as_its_table_says(
    state: SlotState, happening: SlotEvent
) -> None:
    slot = Slot("worker", "w1", state)
    after = _NEXT[state].get(happening)
    if after is None:
        with pytest.raises(AssertionError, match="w1 is"):
            slot.enter(happening)
        assert slot.state is state
    else:
        slot.enter(happening)
        assert slot.state is after


def test_the_table_in_the_docstring_equals_that_of_the_code() -> None:
    lines = [line.split() for line in (agent.__doc__ or "").splitlines()]
    (head,) = [words[1:] for words in lines if words[:1] == ["state"]]
    rows = {words[0]: words[1:] for words in lines if words and words[0] in SlotState.__members__}
    table = {
        SlotState[state]: {
            SlotEvent[h]: SlotState[after]
            for h, after in zip(head, row, strict=True)
            if after != "-"
        }
        for state, row in rows.items()
    }
    assert table == _NEXT


def test_a_slot_has_a_process_only_between_its_start_and_its_end() -> None:
    for state, happening in itertools.product(SlotState, SlotEvent):
        after = _NEXT[state].get(happening)
        if after in (SlotState.RUNNING, SlotState.DYING):
            assert state in (SlotState.STARTING, SlotState.RUNNING, SlotState.DYING)


def in_state(state: SlotState) -> Host:
    """Return a host of one worker whose slot is in a state."""
    host = Host(1)
    host.tick()
    match state:
        case SlotState.WAITING:
            host.step(NotStarted("w1", "no more processes"))
        case SlotState.STARTING:
            pass
        case SlotState.RUNNING:
            host.started("w1")
        case SlotState.DYING:
            host.started("w1")
            host.hear(wire.Kill(host.slot().incarnation, "asked"))
        case SlotState.HELD:
            host.started("w1")
            host.exit("w1", CANNOT_IMPORT, Flight(), why="no module")
        case SlotState.OVER:
            host.started("w1")
            host.exit("w1", 0, DONE)
    assert host.slot().state is state
    return host


EVENTS: dict[str, agent.Event] = {
    "started": Started("w1", b"w-new", 5),
    "not started": NotStarted("w1", "no more processes"),
    "died": Exited("w1", -11, READY),
    "done": Exited("w1", 0, DONE),
    "unfit": Exited("w1", CANNOT_IMPORT, Flight(), why="no module"),
    "ticked": Ticked({"w1": READY}),
    "looked": Ticked({"w1": READY}, {"w1": "R"}),
    "launcher gone": LauncherGone(),
}
AFTER: dict[SlotState, dict[str, SlotState]] = {
    SlotState.WAITING: {},
    SlotState.STARTING: {"started": SlotState.RUNNING, "not started": SlotState.WAITING},
    SlotState.RUNNING: {
        "died": SlotState.STARTING,
        "done": SlotState.OVER,
        "unfit": SlotState.HELD,
    },
    SlotState.DYING: {"died": SlotState.STARTING, "done": SlotState.OVER, "unfit": SlotState.HELD},
    SlotState.HELD: {},
    SlotState.OVER: {},
}
HARMLESS = ("ticked", "looked", "launcher gone")


@pytest.mark.parametrize(("state", "event"), list(itertools.product(SlotState, EVENTS)), ids=str)
def test_every_event_is_accepted_or_refused_in_every_state(state: SlotState, event: str) -> None:
    host = in_state(state)
    after = AFTER[state].get(event, state if event in HARMLESS else None)
    if after is None:
        with pytest.raises(AssertionError):
            host.step(EVENTS[event])
    else:
        host.step(EVENTS[event])
        assert host.slot().state is after


@pytest.mark.parametrize("state", list(SlotState), ids=lambda each: each.name)
def test_a_stop_is_accepted_in_every_state_and_starts_nothing(state: SlotState) -> None:
    host = in_state(state)
    actions = host.hear(wire.Stop("asked"))
    runs = state in (SlotState.STARTING, SlotState.RUNNING, SlotState.DYING)
    assert bool(of(EndAgent, actions)) is not runs
    assert not of(Start, actions)


def test_all_slots_start_at_once() -> None:
    host = Host(2, origin=True, greeted=False)
    assert [each.name for each in host.tick() if isinstance(each, Start)] == ["w1", "w2", "origin"]


def test_a_dead_worker_is_replaced_at_once_and_its_death_is_reported() -> None:
    host = running()
    actions = host.exit("w1", -11, BUSY)
    assert isinstance(actions[0], EndLeftovers)
    assert lost(actions).reason == "crash"
    assert (lost(actions).on_cpu, lost(actions).index, lost(actions).call) == (ATTEMPT, 7, 2)
    assert notes(actions) == [Died("worker", "w1", -11, oom=False)]
    assert of(Start, actions) == [Start("w1")]


def test_renewed_workers_are_replaced_and_no_item_is_blamed() -> None:
    host = running()
    assert {each.name for each in host.machine.renew() if isinstance(each, KillProcess)} == {
        "w1",
        "w2",
    }
    host.machine.check()
    actions = host.exit("w1", -9, BUSY)
    assert lost(actions).reason == "asked"
    assert notes(actions) == []
    assert of(Start, actions) == [Start("w1")]


def test_a_process_that_dies_at_once_is_restarted_after_growing_waits_up_to_half_a_minute() -> None:
    host = running()
    waits = []
    for _ in range(14):
        host.exit("w1")
        waits.append(host.slot().start_at - host.now)
        host.tick(waits[-1])
        host.started("w1")
    assert waits[:5] == [0.0, 0.0, 0.25, 0.5, 1.0]
    assert waits[-1] == 30.0


def test_a_process_that_ran_a_second_or_made_progress_is_restarted_at_once() -> None:
    host = running(origin=True)
    for _ in range(2):
        host.exit("w1")
        host.started("w1")
    host.now += 1.0
    host.exit("w1")
    assert host.slot("w1").hasty == 0
    for reached in range(1, 6):
        host.exit("origin", -9, Flight(is_ready=True, reached=reached))
        host.started("origin")
    assert host.slot("origin").hasty == 0


def test_the_run_is_given_up_when_a_process_ends_five_times_before_it_has_begun() -> None:
    host = running()
    for _ in range(4):
        host.exit("w1", 1, Flight())
        host.tick(30.0)
        host.started("w1")
    actions = host.exit("w1", 1, Flight())
    assert notes(actions)[-1] == agent.Stillborn("w1", 5, 1, oom=False)
    host.tick(10.0)
    actions = host.exit("w2", -9)
    assert of(EndAgent, actions) == [EndAgent(HOPELESS)]


def test_the_count_of_early_ends_begins_again_after_a_successful_start() -> None:
    host = running()
    for _ in range(12):
        host.exit("w1", 1, Flight() if host.count % 3 else READY)
        host.tick(30.0)
        host.started("w1")
    assert host.machine.stopping is None


def test_a_refused_process_is_tried_every_second_and_reported_once() -> None:
    host = Host(1)
    host.tick()
    assert notes(host.step(NotStarted("w1", "no memory"))) == [agent.CannotStart("w1", "no memory")]
    assert not of(Start, host.tick(0.9))
    assert of(Start, host.tick(0.1)) == [Start("w1", refusal_reported=True)]
    assert notes(host.step(NotStarted("w1", "no memory"))) == []


def refused_for(host: Host, seconds: int, *, full: bool = False) -> list[agent.Action]:
    """Return the last actions of a host whose w1 cannot be started for some time."""
    actions = host.step(NotStarted("w1", "no memory", full))
    for _ in range(seconds):
        host.tick(1.0)
        if host.slot().state is not SlotState.STARTING:
            break
        actions = host.step(NotStarted("w1", "no memory", full))
    return actions


def test_the_run_stops_when_no_worker_can_be_started_for_ten_seconds() -> None:
    host = Host(1)
    host.tick()
    actions = refused_for(host, 11)
    assert notes(actions) == [agent.ProcessesRefused("worker", "no memory")]
    assert of(EndAgent, actions) == [EndAgent(STOPPED)]


def test_the_run_continues_without_a_refused_worker_while_another_runs() -> None:
    host = running(2)
    host.exit("w1")
    refused_for(host, 60)
    assert host.machine.stopping is None


def test_an_agent_waits_for_a_full_disk_as_long_as_it_takes() -> None:
    host = Host(1)
    host.tick()
    refused_for(host, 100, full=True)
    assert host.machine.stopping is None


def test_a_process_that_was_refused_a_resource_is_not_blamed_and_starts_again_later() -> None:
    host = running(1)
    actions = host.exit("w1", REFUSED, Flight(), why="no more threads")
    assert lost(actions).reason == "asked"
    assert notes(actions) == [agent.CannotStart("w1", "no more threads")]
    assert host.slot().start_at == host.now + 1.0
    assert host.slot().stillborn == 0


def test_a_refusal_is_forgotten_after_ten_seconds_of_life() -> None:
    host = running(2)
    host.exit("w1", REFUSED, Flight(), why="no more threads")
    host.tick(1.0)
    host.started("w1")
    host.now += 11.0
    host.exit("w1")
    assert host.slot().refused_at is None


def test_a_death_is_blamed_on_memory_only_if_the_kernel_has_killed_for_it() -> None:
    host = running()
    assert lost(host.exit("w1", -9, BUSY, oom=True)).reason == "oom"
    assert lost(host.exit("w2", -9, BUSY, oom=False)).reason == "crash"
    host.started("w1")
    assert lost(host.exit("w1", -11, BUSY, oom=True)).reason == "crash"


@pytest.mark.parametrize(
    ("code", "flight"), [(0, DONE), (-9, DONE), (START_AGAIN, BUSY), (REFUSED, BUSY)]
)
def test_a_normal_end_is_no_death(code: int, flight: Flight) -> None:
    assert lost(running().exit("w1", code, flight)).reason == "asked"


def test_an_item_that_exceeds_its_time_limit_ends_its_process_and_is_blamed() -> None:
    host = running()
    host.flights["w1"] = Flight(OnCpu(1, 5, "0", 2, 7, int(101e9), 0), is_ready=True)
    assert not of(KillProcess, host.tick(1.0))
    assert of(KillProcess, host.tick(0.1)) == [KillProcess("w1")]
    assert not of(KillProcess, host.tick(0.1)), "it is killed once"
    assert lost(host.exit("w1", -9, BUSY)).reason == "timeout"
    host.started("w1")
    assert lost(host.exit("w1", -9, BUSY)).reason == "crash", "of the next one it is not true"


def test_a_process_is_killed_for_the_broker_only_while_it_executes_the_attempt() -> None:
    host = running()
    kill = wire.Kill(host.slot().incarnation, "asked", ATTEMPT)
    assert not of(KillProcess, host.hear(kill))
    host.flights["w1"] = BUSY
    assert not of(KillProcess, host.hear(wire.Kill(b"another", "asked", ATTEMPT)))
    assert of(KillProcess, host.hear(kill)) == [KillProcess("w1")]
    assert lost(host.exit("w1", -9, BUSY)).reason == "asked"


def test_a_worker_that_ends_because_of_a_lock_runs_calls_singly_and_may_do_so_a_few_times() -> None:
    host = running()
    actions = host.exit("w1", START_AGAIN)
    assert notes(actions) == [agent.Freed("w1")]
    assert of(Start, actions) == [Start("w1", careful=True)]
    for _ in range(3):
        host.started("w1")
        actions = host.exit("w1", START_AGAIN, READY)
    assert of(Start, actions) == [Start("w1", careful=True, may_be_freed=False)]
    assert host.slot().hasty == 0


def test_a_worker_that_alone_cannot_import_tries_again_four_times() -> None:
    host = running(2)
    waits = []
    for _ in range(3):
        actions = host.exit("w1", CANNOT_IMPORT, Flight(), why="no module m")
        assert lost(actions).reason == "asked"
        waits.append(host.slot().start_at - host.now)
        host.tick(waits[-1])
        host.started("w1")
    assert waits == [1.0, 2.0, 4.0]
    actions = host.exit("w1", CANNOT_IMPORT, Flight(), why="no module m")
    assert sent_up(actions)[-1] == wire.Unfit("", 0, b"", "no module m")
    assert host.slot().state is SlotState.HELD
    assert not of(Start, host.tick(1000.0))


def test_the_run_stops_at_once_if_the_only_worker_cannot_import() -> None:
    host = running(1, origin=True)
    actions = host.exit("w1", CANNOT_IMPORT, Flight(), why="no module m")
    assert isinstance(sent_up(actions)[-1], wire.Unfit)


def test_each_later_broker_is_told_of_a_worker_that_cannot_import() -> None:
    host = running(1, origin=True)
    host.exit("w1", CANNOT_IMPORT, Flight(), why="no module m")
    host.broker = Link(RUN, 2)
    told = sent_up(host.greet())
    assert told[-1] == wire.Unfit("", 0, b"", "no module m")


def test_a_long_import_is_reported_once() -> None:
    host = running(1)
    host.flights["w1"] = Flight(starts_s=61.0)
    assert notes(host.tick(0.5, {"w1": "R"})) == [agent.ImportIsLong("w1", host.slot().pid)]
    assert notes(host.tick(0.5, {"w1": "R"})) == []


def test_only_processes_that_are_not_stopped_are_vouched_for() -> None:
    host = running(3)
    actions = host.tick(0.5, {"w1": "R", "w2": "T", "w3": "Z"})
    assert sent_up(actions) == [wire.Alive([host.slot("w1").incarnation])]
    assert isinstance(actions[-1], Beat)
    assert host.machine.looks_at == host.now + 0.5


def test_a_stopped_process_is_reported_after_three_seconds_and_when_it_runs_again() -> None:
    host = running(1)
    found = [notes(host.tick(0.5, {"w1": "T"})) for _ in range(9)]
    assert [len(each) for each in found].count(1) == 1
    assert agent.Paused("worker", "w1", host.slot().pid) in [n for each in found for n in each]
    assert notes(host.tick(0.5, {"w1": "S"})) == [agent.Continued("w1", host.slot().pid)]
    assert notes(host.tick(0.5, {"w1": "S"})) == []


def stopped(reason: str, *, origin: bool = True) -> Host:
    host = running(1, origin=origin)
    host.hear(wire.Stop(reason))
    return host


def killed_after(host: Host, name: str) -> float:
    """Return the time after which a process is killed."""
    began = host.now
    for _ in range(200):
        if KillProcess(name) in host.tick():
            return host.now - began
        host.now = round(host.now + 0.1, 6)
    return inf


@pytest.mark.parametrize(
    ("reason", "name", "seconds"),
    [
        ("asked", "w1", 3.0), ("asked", "origin", 3.0), ("now", "w1", 0.0), ("ended", "w1", 10.0),
        ("ctrl-c", "w1", 3.0), ("ctrl-c", "origin", 6.0),
    ],
)  # fmt: skip
def test_a_process_that_ignores_a_stop_is_killed_after_its_grace(
    reason: str, name: str, seconds: float
) -> None:
    assert killed_after(stopped(reason), name) == pytest.approx(seconds, abs=0.01)


def test_calls_after_the_end_of_the_script_have_the_grace_time() -> None:
    host = running(1, origin=True)
    host.flights["w1"] = BUSY
    host.hear(wire.Stop("ended"))
    assert killed_after(host, "w1") == pytest.approx(3.0, abs=0.01)


def test_a_process_that_does_not_end_after_its_work_is_reported_and_killed() -> None:
    host = stopped("ended")
    host.flights["origin"] = DONE
    actions = host.tick(10.0)
    assert notes(actions) == [agent.EndsLate("origin")]
    assert of(KillProcess, actions) == [KillProcess("w1"), KillProcess("origin")]


def test_the_agent_says_bye_and_ends_after_the_last_process() -> None:
    host = stopped("asked")
    assert not of(EndAgent, host.exit("w1", 0, DONE))
    actions = host.exit("origin", -9, READY)
    assert lost(actions).reason == "asked"
    assert sent_up(actions)[-1] == wire.Bye()
    # The broker may end after the last Bye, so only the end may come after it.
    assert [type(each) for each in actions[-4:]] == [EndLeftovers, SendLogs, Transmit, EndAgent]
    assert actions[-1] == EndAgent(0)


def test_processes_left_by_a_finished_script_are_not_killed() -> None:
    host = stopped("ended")
    host.exit("w1", 0, DONE)
    assert EndLeftovers() not in host.exit("origin", 0, DONE)


def test_the_end_of_the_launcher_ends_all_at_once_and_the_broker_is_told_nothing() -> None:
    host = running(1, origin=True)
    host.step(LauncherGone())
    assert of(KillProcess, host.tick()) == [KillProcess("w1"), KillProcess("origin")]
    assert sent_up(host.exit("w1", -9, BUSY)) == []
    actions = host.exit("origin", -9, READY)
    assert sent_up(actions) == []
    assert actions[-1] == EndAgent(0)


def test_a_process_that_starts_during_a_stop_is_ended_as_well() -> None:
    host = Host(1)
    host.tick()
    host.hear(wire.Stop("now"))
    host.started("w1")
    assert of(KillProcess, host.seen) == [KillProcess("w1")]
    assert host.exit("w1", -9)[-1] == EndAgent(0)


def test_the_shell_is_woken_at_every_deadline() -> None:
    host = running(1)
    host.tick(0.5, {"w1": "R"})
    assert host.machine.deadline() == host.now + 0.5
    host.slot().hasty = 2
    host.exit("w1")
    assert host.machine.deadline() == host.now + 0.25
    host.tick(0.25)
    host.started("w1")
    host.tick(10.0, {"w1": "R"})
    host.hear(wire.Stop("now"))
    host.tick()
    assert host.machine.deadline() > host.now, "what is done is not waited for"


def test_events_before_the_first_broker_are_sent_with_the_hello() -> None:
    host = Host(1, greeted=False)
    host.tick()
    host.started("w1")
    assert sent_up(host.exit("w1", -11, BUSY)) == []
    messages = sent_up(host.greet())
    assert isinstance(messages[0], wire.Hello)
    assert [type(each) for each in messages[1:]] == [wire.ProcessLost]


def test_a_new_broker_gets_reports_again_that_the_last_one_may_not_have_committed() -> None:
    host = running(1)
    host.exit("w1", -11, BUSY)
    host.started("w1")
    host.broker = Link(RUN, 2)
    messages = sent_up(host.greet())
    hello = messages[0]
    assert isinstance(hello, wire.Hello)
    assert hello.incarnations == [host.slot().incarnation]
    assert wire.ProcessLost in map(type, messages)


def test_a_message_of_an_older_broker_is_ignored() -> None:
    host = running(1)
    old, host.broker = host.broker, Link(RUN, 2)
    host.greet()
    host.broker = old
    host.hear(wire.Stop("now"))
    assert host.machine.stopping is None


def test_a_missing_message_is_requested_and_the_one_after_it_is_not_handled() -> None:
    host = running(1)
    host.broker.pack([wire.encode(wire.Drop([]))])
    actions = host.hear(wire.Stop("now"))
    assert host.machine.stopping is None
    assert len(of(Transmit, actions)) == 1


def remote(workers: int = 1) -> Host:
    """Return the agent of another host, which lives without a broker for a minute."""
    host = Host(workers, orphan_timeout_s=60.0)
    host.tick()
    host.started(*host.machine.slots)
    return host


def wait(host: Host, seconds: float) -> list[agent.Action]:
    """Let time pass for a running agent."""
    found: list[agent.Action] = []
    for _ in range(round(seconds)):
        if not host.machine.left:
            found += host.tick(1.0)
    return found


def test_a_remote_agent_that_never_heard_from_a_broker_ends_with_its_launcher() -> None:
    host = Host(1, greeted=False, orphan_timeout_s=60.0)
    host.tick()
    host.started("w1")

    actions = host.step(LauncherGone()) + host.tick(5.0)

    assert host.machine.stopping == "launcher gone"
    assert of(KillProcess, actions)
    assert type(host.exit("w1", -9)[-1]) is EndAgent


def test_a_remote_agent_outlives_its_launcher() -> None:
    host = remote()

    host.step(LauncherGone())
    wait(host, 30.0)

    assert host.machine.stopping is None


def test_a_remote_agent_ends_when_it_has_heard_from_no_broker_for_long() -> None:
    # Given an agent that gets a last message of a broker
    host = remote()
    host.hear()

    # When no more arrive, then it continues as long as it may
    assert host.machine.deadline() <= host.now + 60.0
    wait(host, 59.0)
    assert host.machine.stopping is None

    # And then it ends normally: no start, the grace time of running items, the report of the end
    actions = wait(host, 1.0)
    assert notes(actions) == [agent.Orphaned(60.0)]
    assert not any(isinstance(action, KillProcess) for action in actions)
    assert any(isinstance(action, KillProcess) for action in wait(host, 4.0))
    actions = host.exit("w1", -9)
    assert [type(each) for each in actions][-1] is EndAgent
    assert host.machine.status == 0


def test_a_remote_agent_that_hears_from_a_broker_continues() -> None:
    host = remote()
    for _ in range(5):
        wait(host, 50.0)
        host.step(Received(host.broker.beat(), {}))

    assert host.machine.stopping is None


def test_a_message_of_an_old_broker_does_not_keep_an_agent_alive() -> None:
    host = remote()
    host.step(Received(Link(RUN, 2).beat(), {}))
    wait(host, 59.0)
    host.step(Received(host.broker.beat(), {}))

    wait(host, 1.0)

    assert host.machine.stopping == "orphaned"


def test_a_remote_agent_that_slept_reports_it_and_does_not_count_the_time() -> None:
    # Given a broker with leases of three seconds
    host = remote()
    host.hear(wire.Welcome(1, 7, 3.0))

    # When the host sleeps for an hour
    host.now += 3600.0
    actions = host.tick()

    # Then it reports this, and waits for the broker as long as without the sleep
    assert notes(actions) == [agent.Slept(3600.0)]
    assert notes(wait(host, 59.0)) == []
    assert host.machine.stopping is None
    wait(host, 1.0)
    assert host.machine.stopping == "orphaned"


def test_a_local_agent_ignores_how_long_it_slept() -> None:
    host = running()

    host.now += 3600.0

    assert notes(host.tick()) == []
    assert host.machine.stopping is None


def test_a_drained_agent_ends_normally() -> None:
    host = remote()

    host.hear(wire.Stop("drained"))
    actions = host.exit("w1", 0, DONE)

    assert [type(each) for each in actions][-1] is EndAgent
    assert host.machine.status == 0


def test_a_ping_is_answered_at_once() -> None:
    host = remote()

    actions = host.hear()

    (answer,) = [each for each in actions if isinstance(each, Transmit)]
    assert wire.unpack_header(answer.frames[0]).ack == host.broker.sent


def test_a_remote_agent_that_missed_a_stop_starts_workers_for_the_next_broker() -> None:
    # Given an agent that was not told to end, although its worker was
    host = remote()
    host.exit("w1", 0, DONE)
    assert host.slot().state is SlotState.OVER
    wait(host, 5.0)

    # When the run is resumed by a new broker
    actions = host.step(Received(Link(RUN, 2).beat(), {}))

    # Then it has a worker again
    assert [each.name for each in actions if isinstance(each, Start)] == ["w1"]


def test_a_local_agent_does_not_restart_a_worker_whose_work_is_done() -> None:
    host = running()
    host.exit("w1", 0, DONE)

    assert not [a for a in host.step(Received(Link(RUN, 2).beat(), {})) if isinstance(a, Start)]


class Damaged:
    """Files that can be written, but not read."""

    def write(self, frames: Sequence[bytes]) -> int:
        return 1

    def read(self, number: int) -> None:
        return None

    def remove(self, number: int) -> None:
        pass


def relaying(memory: int = 1 << 20, disk: int = 0) -> Host:
    """Return a host of one worker, which has sent a result that the broker has not acknowledged."""
    relay = Relay(RUN, "n", RelayConfig(memory, disk), Damaged())
    host = Host(1, orphan_timeout_s=60.0, relay=relay)
    host.tick()
    host.started("w1")
    outcome = wire.Outcome(0, 0, b"f", b"d" * 32, [b"v"], task=ATTEMPT)
    frames = Link(RUN, 1).pack([wire.encode(wire.Outcomes("0", [outcome]))])
    relay.up(PeerId(host.slot().incarnation), frames)
    return host


def forwarded(actions: list[agent.Action]) -> list[wire.Up]:
    return [
        wire.decode_up(frame)
        for each in actions
        if isinstance(each, Forward)
        for frame in each.frames[1:]
    ]


def acknowledge(host: Host, *, result: bool = False) -> list[agent.Action]:
    """Let the broker acknowledge all messages of the agent and, if wanted, that of its worker."""
    if result:
        assert host.machine.relay is not None
        (peer,) = host.machine.relay.unreported
        host.machine.relay.down(peer, wire.Header(RUN, wire.BEAT, 1, 0, 1))
    frames = [wire.pack_header(RUN, wire.BEAT, 1, host.broker.sent, host.machine.link.sent)]
    return host.step(Received(frames, dict(host.flights)))


def test_the_end_of_a_remote_worker_is_reported_when_its_finished_results_have_arrived() -> None:
    # Given a worker that dies with an unacknowledged result
    host = relaying()
    dead = host.slot().incarnation
    actions = host.exit("w1")
    assert sent_up(actions) == [wire.Alive([], [dead])]
    assert of(Start, actions) == [Start("w1")], "its successor does not wait"

    # When the broker knows of its end, then the result is sent
    host.tick(PATIENCE_S)
    assert forwarded(host.seen) == []
    actions = acknowledge(host)
    actions += host.tick(PATIENCE_S)
    assert len(forwarded(actions)) == 1
    assert not any(isinstance(each, wire.ProcessLost) for each in sent_up(host.seen))

    # When it has arrived, then the end is reported
    assert lost(acknowledge(host, result=True)).incarnation == dead
    assert host.machine.ends == {}


def test_a_new_broker_learns_first_which_workers_have_ended() -> None:
    host = relaying()
    dead = host.slot().incarnation
    host.exit("w1")
    host.tick(SETTLE_S)
    host.broker = Link(RUN, 2)
    actions = host.greet()
    assert sent_up(actions)[-1] == wire.Alive([], [dead])
    assert forwarded(actions) == [], "it does not know of them yet"


def test_a_worker_that_is_killed_for_the_broker_has_nothing_to_send() -> None:
    host = relaying()
    host.exit("w1")
    host.tick(SETTLE_S)
    (dead,) = host.machine.ends
    assert lost(host.hear(wire.Kill(dead, "asked"))).incarnation == dead


@pytest.mark.parametrize(("reason", "waits"), [("drained", True), ("asked", True), ("now", False)])
def test_a_stop_waits_for_results_only_if_they_are_wanted(reason: str, *, waits: bool) -> None:
    host = relaying()
    host.hear(wire.Stop(reason))
    actions = host.exit("w1", 0, DONE)
    assert bool(of(EndAgent, actions)) is not waits
    if waits:
        host.tick(SETTLE_S)
        actions = acknowledge(host, result=True)
        assert of(EndAgent, actions)
    assert lost(actions).incarnation
    assert isinstance(sent_up(actions)[-1], wire.Bye)


def test_a_stop_waits_no_longer_than_its_grace_for_results() -> None:
    host = relaying()
    host.hear(wire.Stop("drained"))
    assert not of(EndAgent, host.exit("w1", 0, DONE))
    assert not of(EndAgent, host.tick(2.5))
    actions = host.tick(0.5)
    assert of(EndAgent, actions)
    assert lost(actions).incarnation


def test_copies_that_could_not_be_kept_are_reported_once() -> None:
    host = relaying(memory=0)
    assert notes(host.tick()) == [NotKept()]
    assert notes(host.tick()) == []


def test_files_of_results_that_cannot_be_read_are_reported() -> None:
    host = relaying(memory=0, disk=1 << 20)
    host.exit("w1")
    host.tick(SETTLE_S)
    acknowledge(host)
    assert notes(host.tick(PATIENCE_S)) == [DamagedCopies(1)]
    assert notes(host.tick(0.1)) == []
