"""Other hosts at the broker: lost and back, quarantined, drained, cut off, and how they are shown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from resilient_scoop.core.broker import host_life, hosts
from resilient_scoop.core.broker.host_life import _NEXT, HostEvent, HostState, KnownHost
from resilient_scoop.core.endings import LAUNCHER_GONE
from resilient_scoop.core.events import (
    Action,
    AgentOver,
    CutHost,
    DrainHost,
    Interrupt,
    JoinHost,
    RevokeHost,
    Tick,
)
from resilient_scoop.ids import ROOT, PeerId
from resilient_scoop.wire import messages as wire
from tests.unit.bench import (
    AGENT,
    FN,
    ORIGIN,
    PLAIN,
    RISKY,
    W1,
    Bench,
    calls,
    digests,
    granted,
    outcomes,
    part,
    sent,
)

ALICE, A1, A2 = PeerId(b"Aalice..."), PeerId(b"Walice.1."), PeerId(b"Walice.2.")
BOB, B1 = PeerId(b"Abob....."), PeerId(b"Wbob...1.")
HOSTS = {ALICE: "alice", A1: "alice", A2: "alice", BOB: "bob", B1: "bob"}
PROCESSES = {"alice": [A1, A2], "bob": [B1]}


class Grid(Bench):
    """A broker with a script and the hosts alice (two workers) and bob (one)."""

    def hear(self, peer: PeerId, *messages: wire.Up) -> list[Action]:
        return self.tell(peer, *messages, host=HOSTS[peer])

    def come(self, *peers: PeerId, **more: Any) -> list[Action]:
        found: list[Action] = []
        for peer in peers:
            host, role = HOSTS[peer], "agent" if peer[:1] == b"A" else "worker"
            guests = self.broker.hosts.guests
            guests.bind(peer, self.broker.hosts.get(host), ())
            hello = wire.Hello(role, host, peer.decode(), 1, **more)
            assert guests.judge(peer, [hello]) == ""
            found += self.hear(peer, hello)
        return found

    def open(self, *peers: PeerId) -> wire.Attempt:
        self.arrive(AGENT)
        self.arrive(ORIGIN)
        self.come(*(peers or (ALICE, A1, A2, BOB, B1)))
        assert self.broker.members.root is not None
        return self.broker.members.root[0]

    def call(self, root: wire.Attempt, items: int, call: int = 0, **more: Any) -> list[Action]:
        return self.tell(ORIGIN, PLAIN, *calls(part(call, 0, items, **more), attempt=root))

    def pass_s(self, seconds: float, *agents: PeerId, **more: Any) -> list[Action]:
        """Let time pass; these agents vouch for their workers."""
        found: list[Action] = []
        vouched: Sequence[PeerId] | None = more.get("vouched")
        for _ in range(round(seconds * 2)):
            self.now += 0.5
            found += self.tell(AGENT, wire.Alive([ORIGIN]))
            for each in agents:
                names = PROCESSES[HOSTS[each]] if vouched is None else vouched
                found += self.hear(each, wire.Alive(list(names)))
            found += self.feed(Tick())
        return found

    def host(self, name: str) -> KnownHost:
        return self.broker.hosts.by_name[name]

    def notes(self) -> list[str]:
        found, self.broker.hosts.notes = self.broker.hosts.notes, []
        return found

    def leased(self, peer: PeerId) -> int:
        there = self.broker.members.peers.get(peer)
        return 0 if there is None else sum(each.left.count() for each in there.leases.values())


@pytest.mark.parametrize("state", HostState)
@pytest.mark.parametrize("happening", HostEvent)
def test_a_host_changes_state_only_as_the_table_says(
    state: HostState, happening: HostEvent
) -> None:
    host = KnownHost("alice", state)
    if happening in _NEXT[state]:
        host.enter(happening)
        assert host.state is _NEXT[state][happening]
    else:
        with pytest.raises(AssertionError, match=f"{state.name} at {happening.name}"):
            host.enter(happening)


def test_the_table_in_the_docstring_equals_that_of_the_code() -> None:
    lines = [line.split() for line in (host_life.__doc__ or "").splitlines()]
    (head,) = [words[1:] for words in lines if words[:1] == ["state"]]
    rows = {
        words[0]: words[1:]
        for words in lines
        if words and words[0] in HostState.__members__ and len(words) == len(head) + 1
    }
    table = {
        HostState[state]: {
            HostEvent[event]: HostState[state if after == "(same)" else after]
            for event, after in zip(head, row, strict=True)
            if after != "-"
        }
        for state, row in rows.items()
    }
    assert table == _NEXT


def test_a_silent_host_is_lost_at_once_with_all_its_items() -> None:
    # Given items on three workers of two hosts
    grid = Grid()
    grid.call(grid.open(), 6)
    held = grid.leased(A1) + grid.leased(A2)
    assert held
    assert grid.leased(B1)

    # When one of the hosts sends nothing for ten seconds
    grid.pass_s(10.0, BOB)
    assert grid.host("alice").state is HostState.UP
    grid.pass_s(0.5, BOB)

    # Then it is lost with all its workers at once, and a note names its items
    assert grid.host("alice").state is HostState.LOST
    assert {ALICE, A1, A2}.isdisjoint(grid.broker.members.peers)
    assert grid.notes() == [
        f"host alice is lost: nothing was heard of it for 10 s; {held} items run again elsewhere"
    ]
    assert grid.broker.state.tally.counts.resubmitted == held
    assert grid.leased(B1) or granted(grid.feed(Tick()), B1)


def test_a_host_that_returns_is_noted_and_its_results_count_and_its_leases_do_not() -> None:
    # Given a lost host that had an item
    grid = Grid()
    root = grid.open(ALICE, A1)
    (task,) = granted(grid.call(root, 1), A1)
    grid.pass_s(11.0)
    grid.notes()

    # When its worker sends first, then it gets no work yet
    attempt = wire.Attempt(1, task.no)
    grid.hear(A1, wire.Parked(attempt, 0))
    assert grid.leased(A1) == 0
    assert A1 not in grid.broker.scheduler.workers

    # When its agent sends, then the host is back, and gets work under another attempt
    actions = grid.hear(ALICE, wire.Alive([A1]))
    assert grid.notes() == ["host alice is back"]
    (again,) = granted(actions, A1)
    assert again.no != task.no

    # And the earlier result counts, once
    grid.hear(A1, outcomes(0, 0, 1, task=attempt))
    assert grid.broker.state.items_done == 1


def test_a_new_agent_of_a_lost_host_makes_it_come_back() -> None:
    grid = Grid()
    grid.open(ALICE, A1)
    grid.pass_s(11.0)
    grid.notes()
    new = PeerId(b"Aalice.new")
    HOSTS[new] = "alice"

    grid.come(new)

    assert grid.notes() == ["host alice is back"]
    assert grid.host("alice").agent is grid.broker.members.peers[new]
    assert grid.broker.hosts.arrivals == 2
    assert A1 in grid.broker.membership.silent


def test_processes_of_an_earlier_agent_are_forgotten_when_they_are_certainly_dead() -> None:
    grid = Grid()
    grid.open(ALICE, A1)
    grid.pass_s(11.0)
    for seconds, known in ((1.0, True), (hosts.FORGET_S, False)):
        grid.now += seconds
        grid.broker._stepped_at = grid.now
        new = PeerId(b"Anew%d" % seconds)
        HOSTS[new] = "alice"
        grid.come(new)
        assert (A1 in grid.broker.membership.silent) == known
    assert A1 in grid.broker.take_dead()


def test_only_the_worker_that_its_agent_does_not_vouch_for_is_lost() -> None:
    grid = Grid()
    grid.call(grid.open(ALICE, A1, A2), 4)

    grid.pass_s(10.5, ALICE, vouched=[A2])

    assert grid.host("alice").state is HostState.UP
    assert A1 not in grid.broker.members.peers
    assert A2 in grid.broker.members.peers


def test_a_pause_of_the_broker_itself_counts_against_no_host() -> None:
    grid = Grid()
    grid.open(ALICE, A1)
    grid.pass_s(5.0)

    grid.now += 100.0
    grid.feed(Tick())
    grid.pass_s(4.5)
    assert grid.host("alice").state is HostState.UP

    grid.pass_s(1.0)
    assert grid.host("alice").state is HostState.LOST


def test_a_host_that_sends_but_receives_nothing_is_lost() -> None:
    # Given a host that does not answer
    grid = Grid()
    grid.call(grid.open(ALICE, A1), 1)
    grid.host("alice").pings.append((2, grid.now))

    # When it has sent for ten seconds
    grid.pass_s(10.5, ALICE)

    # Then it is lost, and stays lost until it answers
    assert grid.host("alice").state is HostState.LOST
    assert "it did not answer" in grid.notes()[0]
    grid.pass_s(1.0, ALICE)
    assert grid.host("alice").state is HostState.LOST
    grid.host("alice").pings.append((3, grid.now))
    grid.broker.hosts.answers(ALICE, 3, grid.now + 0.08)
    grid.pass_s(0.5, ALICE)
    assert grid.host("alice").state is HostState.UP
    assert grid.host("alice").rtt_s == pytest.approx(0.08)


def test_an_answer_that_was_due_before_the_loss_does_not_count_after_the_return() -> None:
    grid = Grid()
    grid.open(ALICE, A1)
    grid.pass_s(10.5)
    grid.host("alice").pings.append((2, grid.now))
    grid.pass_s(30.0)

    grid.pass_s(5.0, ALICE)

    assert grid.host("alice").state is HostState.UP


def test_the_agent_of_a_remote_host_kills_an_attempt_of_its_worker() -> None:
    # Given an item on alice, below a parent on bob that exceeds its time limit
    grid = Grid()
    grid.open()
    peer = grid.broker.members.peers[A1]

    grid.broker.outbox.actions = []
    grid.broker.membership._kill(peer, wire.Attempt(1, 1))

    kills = {
        each: sent(grid.broker.outbox.actions, each, wire.Kill) for each in (AGENT, ALICE, BOB)
    }
    assert [bool(kills[each]) for each in (AGENT, ALICE, BOB)] == [False, True, False]


def test_only_messages_of_the_local_agent_show_that_it_lives() -> None:
    grid = Grid()
    grid.open(ALICE, A1)
    grid.now += 1.0
    grid.hear(ALICE, wire.Alive([A1]))

    assert grid.broker.membership.agent_alive_at < grid.now


def test_a_hello_of_a_remote_agent_does_not_affect_a_local_host_of_the_same_name() -> None:
    grid = Grid()
    grid.arrive(AGENT)
    grid.arrive(ORIGIN)
    peer = grid.broker.members.peers[ORIGIN]
    peer.node = "alice"

    grid.come(ALICE)

    assert ORIGIN in grid.broker.members.peers


def lose(grid: Grid, times: int) -> None:
    for _ in range(times):
        grid.pass_s(10.5, BOB)
        grid.pass_s(1.0, ALICE, BOB)


def test_a_host_that_is_lost_often_gets_no_work_for_some_time() -> None:
    # Given a host that is lost for the third time in ten minutes
    grid = Grid()
    grid.open()
    lose(grid, 2)
    assert grid.host("alice").state is HostState.UP
    lose(grid, 1)

    # Then it gets no work although it is connected
    assert grid.host("alice").state is HostState.QUARANTINED
    assert "host alice gets no work for 60 s: it was lost 3 times in 10 minutes" in grid.notes()
    assert {A1, A2}.isdisjoint(grid.broker.scheduler.workers)
    grid.pass_s(55.0, ALICE, BOB)
    assert A1 not in grid.broker.scheduler.workers

    # And after a minute it gets work
    grid.pass_s(5.0, ALICE, BOB)
    assert grid.host("alice").state is HostState.UP
    assert "the quarantine of host alice is over" in grid.notes()
    assert A1 in grid.broker.scheduler.workers

    # And the next quarantine is twice as long
    lose(grid, 3)
    assert "host alice gets no work for 120 s: it was lost 3 times in 10 minutes" in grid.notes()


def test_losses_with_long_intervals_put_no_host_into_quarantine() -> None:
    grid = Grid()
    grid.open()
    for _ in range(4):
        lose(grid, 1)
        grid.pass_s(300.0, ALICE, BOB)

    assert grid.host("alice").state is HostState.UP


def test_a_quarantine_does_not_take_the_last_workers() -> None:
    # Given a run whose only workers are those of one host
    grid = Grid()
    grid.open(ALICE, A1)
    for _ in range(3):
        grid.pass_s(10.5)
        grid.pass_s(1.0, ALICE)

    grid.pass_s(1.0, ALICE)

    assert grid.host("alice").state is HostState.UP
    assert A1 in grid.broker.scheduler.workers


def test_a_quarantine_ends_while_the_host_is_away() -> None:
    grid = Grid()
    grid.open()
    lose(grid, 3)
    grid.pass_s(61.0, BOB)

    assert grid.host("alice").state is HostState.LOST


def test_a_drained_host_ends_its_begun_items_and_is_then_told_to_end() -> None:
    # Given two workers of a host, one of which has begun an item and holds another one
    grid = Grid()
    root = grid.open()
    grid.call(root, 6)
    begun = {peer: next(iter(grid.broker.members.peers[peer].leases)) for peer in (A1, A2)}

    # When the host is drained, then items that have not begun are requested back
    actions = grid.feed(DrainHost("alice"))
    asked = {peer: [m.attempt for m in sent(actions, peer, wire.Retract)] for peer in (A1, A2)}
    for peer in (A1, A2):
        assert set(asked[peer]) == set(grid.broker.members.peers[peer].leases)
        for attempt in asked[peer]:
            stop = 1 << 62 if attempt == begun[peer] else 0
            grid.hear(peer, wire.Returned(attempt, stop))
    assert (grid.leased(A1), grid.leased(A2)) == (1, 1)
    assert not granted(grid.pass_s(20.0, ALICE, BOB), A1)

    # When the items have ended, then its processes are told to end
    for peer in (A1, A2):
        (lease,) = grid.broker.members.peers[peer].leases.values()
        start = lease.left.starts[0]
        actions = grid.hear(peer, outcomes(0, start, start + 1, task=lease.attempt))
    assert [m.reason for m in sent(actions, ALICE, wire.Stop)] == ["drained"]
    assert sent(actions, A1, wire.Stop)

    # And when they have ended, the host is drained, and nothing was lost
    for peer in (A1, A2, ALICE):
        grid.hear(peer, wire.Bye())
    assert grid.host("alice").state is HostState.DRAINED
    assert grid.notes()[-1] == "host alice has left the run: it was asked to leave"
    assert grid.broker.state.tally.counts.resubmitted == 0
    assert grid.host("alice").lost_items == 0


def test_a_parent_of_a_drained_host_moves_when_it_has_no_open_block() -> None:
    # Given a parent that waits on alice
    grid = Grid()
    root = grid.open(ALICE, A1)
    (task,) = granted(grid.call(root, 1), A1)
    attempt = wire.Attempt(1, task.no)
    grid.hear(A1, *calls(part(0, 0, 1), parent="0.0[0]", attempt=attempt), wire.Parked(attempt, 0))
    grid.come(BOB, B1)

    # When the host is drained, then it is asked which parents have an open block
    actions = grid.feed(DrainHost("alice"))
    (wanted,) = sent(actions, A1, wire.CheckpointWanted)
    assert not sent(actions, A1, wire.Evict)

    # And a parent without one continues on another host
    actions = grid.hear(A1, wire.OpenBlocks(wanted.no, []))
    assert [(m.attempt, m.index) for m in sent(actions, A1, wire.Evict)] == [(attempt, 0)]
    assert [task.replay for task in granted(actions, B1)] == [True]


def test_a_parent_of_a_drained_host_moves_when_it_has_saved() -> None:
    grid = Grid()
    root = grid.open(ALICE, A1)
    (task,) = granted(grid.call(root, 1), A1)
    attempt = wire.Attempt(1, task.no)
    path = "0.0[0]"
    grid.hear(A1, *calls(part(0, 0, 1), parent=path, attempt=attempt), wire.Parked(attempt, 0))
    grid.come(BOB, B1)
    (wanted,) = sent(grid.feed(DrainHost("alice")), A1, wire.CheckpointWanted)

    actions = grid.hear(A1, wire.OpenBlocks(wanted.no, [path]))
    assert not sent(actions, A1, wire.Evict)

    saved = wire.Checkpoint(path, attempt, "b", 0, 1, 0, 0, 0, 1, 0, b"state", [0])
    actions = grid.hear(A1, saved)
    assert sent(actions, A1, wire.Evict)


def test_a_drain_may_be_requested_during_a_request_for_checkpoints() -> None:
    from resilient_scoop.core.events import AskCheckpoints

    grid = Grid()
    root = grid.open()
    grid.call(root, 2)
    (before,) = sent(grid.feed(AskCheckpoints(False, 30.0)), A1, wire.CheckpointWanted)

    (during,) = sent(grid.feed(DrainHost("alice")), A1, wire.CheckpointWanted)

    assert during.no == before.no


def test_a_drained_host_is_told_to_end_at_its_deadline_whatever_it_does() -> None:
    grid = Grid()
    grid.call(grid.open(), 6)
    grid.feed(DrainHost("alice", 5.0))
    held = grid.leased(A1) + grid.leased(A2)

    assert not sent(grid.pass_s(4.5, ALICE, BOB), ALICE, wire.Stop)
    assert sent(grid.pass_s(0.5, ALICE, BOB), ALICE, wire.Stop)

    # Its items run again when its processes have ended; those that do not end in time are
    # disconnected
    assert grid.leased(A1) + grid.leased(A2) == held
    actions = grid.pass_s(hosts.LEAVE_S, ALICE, BOB)
    assert not [action for action in actions if isinstance(action, CutHost)]
    actions = grid.pass_s(0.5, ALICE, BOB)
    assert [action.host for action in actions if isinstance(action, CutHost)] == ["alice"]
    assert grid.host("alice").state is HostState.REVOKED
    assert grid.host("alice").lost_items == held
    assert grid.broker.state.tally.counts.resubmitted == 0


def test_an_item_that_must_not_run_twice_stays_on_a_drained_host() -> None:
    grid = Grid()
    root = grid.open(ALICE, A1)
    actions = grid.tell(ORIGIN, RISKY, *calls(part(0, 0, 1, fn=RISKY.fn), attempt=root))
    (task,) = granted(actions, A1)
    attempt = wire.Attempt(1, task.no)
    grid.hear(A1, wire.BeginWanted(attempt, 0))
    grid.hear(A1, *calls(part(0, 0, 1), parent="0.0[0]", attempt=attempt), wire.Parked(attempt, 0))
    grid.come(BOB, B1)
    (wanted,) = sent(grid.feed(DrainHost("alice")), A1, wire.CheckpointWanted)

    actions = grid.hear(A1, wire.OpenBlocks(wanted.no, []))

    assert not sent(actions, A1, wire.Evict)
    assert attempt in grid.broker.members.peers[A1].leases


def test_a_host_that_is_drained_before_its_arrival_is_told_to_end_when_it_arrives() -> None:
    grid = Grid()
    grid.arrive(AGENT)
    grid.arrive(ORIGIN)
    grid.feed(DrainHost("alice"))

    actions = grid.come(ALICE)

    assert sent(actions, ALICE, wire.Stop)
    assert grid.host("alice").state is HostState.DRAINING


def test_a_silent_host_in_a_drain_counts_as_drained() -> None:
    grid = Grid()
    grid.call(grid.open(), 6)
    held = grid.leased(A1) + grid.leased(A2)
    grid.feed(DrainHost("alice"))

    grid.pass_s(10.5, BOB)

    assert grid.host("alice").state is HostState.DRAINED
    assert grid.broker.state.tally.counts.resubmitted == held


def test_a_host_that_is_enrolled_again_gets_work_again() -> None:
    grid = Grid()
    grid.open()
    grid.feed(DrainHost("alice"))
    assert A1 not in grid.broker.scheduler.workers

    grid.feed(JoinHost("alice"))

    assert grid.host("alice").state is HostState.UP
    assert A1 in grid.broker.scheduler.workers


def test_a_host_that_lacks_what_the_run_needs_leaves_and_the_run_continues() -> None:
    grid = Grid()
    root = grid.open()
    grid.call(root, 3)
    (lease,) = grid.broker.members.peers[A1].leases.values()
    index = lease.left.starts[0]

    actions = grid.hear(A1, wire.Unfit(ROOT, 0, PLAIN.fn, "alice has no module numpy"))

    assert grid.host("alice").state is HostState.DRAINING
    assert "alice has no module numpy" in grid.notes()[0]
    assert grid.broker.membership.stopping is None
    assert sent(actions, A1, wire.Drop)
    assert index in lease.batch.ready or grid.leased(B1) > 1


def test_the_only_host_that_lacks_what_the_run_needs_stops_the_run() -> None:
    grid = Grid()
    root = grid.open(ALICE, A1)
    grid.call(root, 1)

    grid.hear(A1, wire.Unfit(ROOT, 0, PLAIN.fn, "alice has no module numpy"))

    assert grid.broker.membership.stopping == "alice has no module numpy"


def test_a_full_disk_of_another_host_holds_back_that_host_only() -> None:
    grid = Grid()
    root = grid.open()
    grid.hear(A1, wire.NoRoom(1 << 20, "a result", "disk full", result=True))

    actions = grid.call(root, 3)

    assert not granted(actions, A1)
    assert granted(actions, A2)
    assert granted(actions, B1)


def test_an_agent_that_ends_by_itself_has_left_and_its_host_is_not_lost() -> None:
    grid = Grid()
    grid.call(grid.open(), 6)

    for peer in (A1, A2, ALICE):
        grid.hear(peer, wire.Bye())

    assert grid.host("alice").state is HostState.UNKNOWN
    assert grid.notes() == ["host alice has left the run: its agent has ended"]
    grid.pass_s(20.0, BOB)
    assert grid.notes() == []


def test_a_host_that_reports_the_death_of_its_agent_is_lost_at_once() -> None:
    # Given items on three workers of two hosts
    grid = Grid()
    grid.call(grid.open(), 6)
    assert grid.leased(A1) + grid.leased(A2)

    # When the host alice reports the death of its agent
    grid.feed(AgentOver("alice", ALICE, died=True))

    # Then it is lost without waiting for the heartbeat timeout
    assert grid.host("alice").state is HostState.LOST
    assert grid.host("alice").peers == {}
    assert "host alice is lost: its agent has died" in "".join(grid.notes())
    grid.tell(B1, outcomes(0, 0, 2), host="bob")
    assert set(grid.broker.take_dead()) == {ALICE, A1, A2}


def test_results_that_a_host_sent_before_the_death_of_its_agent_count() -> None:
    grid = Grid()
    (task,) = granted(grid.call(grid.open(ALICE, A1), 1), A1)
    grid.feed(AgentOver("alice", ALICE, died=True))

    grid.hear(A1, outcomes(0, 0, 1, task=wire.Attempt(1, task.no)))

    assert grid.broker.state.items_done == 1
    assert grid.host("alice").state is HostState.LOST
    assert grid.host("alice").peers == {}


@pytest.mark.parametrize(
    "over",
    [
        AgentOver("alice", PeerId(b"Aformer.."), died=True),  # a former one
        AgentOver("alice", A1, died=True),  # no agent
        AgentOver("alice", BOB, died=True),  # an agent of another host
        AgentOver("carol", ALICE, died=True),  # reported by another host
        AgentOver("dave", ALICE, died=True),
    ],
)
def test_a_report_of_a_host_counts_only_for_its_present_agent(over: AgentOver) -> None:
    grid = Grid()
    grid.call(grid.open(), 6)
    grid.broker.hosts.get("carol")

    grid.feed(over)

    assert grid.host("alice").state is HostState.UP
    assert grid.host("bob").state is HostState.UP
    assert grid.leased(A1)


def test_an_agent_whose_goodbye_is_lost_has_left_when_its_host_reports_it() -> None:
    grid = Grid()
    grid.open()
    grid.feed(AgentOver("alice", ALICE, died=False))
    assert grid.host("alice").state is HostState.UNKNOWN
    assert grid.host("alice").peers == {}
    assert "host alice has left the run" in "".join(grid.notes())


def test_a_stop_does_not_wait_for_a_host_whose_agent_has_ended() -> None:
    grid = Grid()
    grid.open(ALICE, A1)
    grid.feed(Interrupt("ended"))
    for peer in (AGENT, ORIGIN):
        grid.tell(peer, wire.Bye())

    before = grid.broker.is_deserted
    grid.feed(AgentOver("alice", ALICE, died=False))

    assert (before, grid.broker.is_deserted) == (False, True)
    assert grid.notes() == []


def test_a_host_is_back_when_it_has_a_new_agent_after_the_death_of_the_old_one() -> None:
    grid = Grid()
    grid.open(ALICE, A1)
    grid.feed(AgentOver("alice", ALICE, died=True))
    again = PeerId(b"Aalice.2.")
    HOSTS[again] = "alice"
    grid.come(again)
    assert grid.host("alice").state is HostState.UP


def test_a_revoked_host_is_cut_off_at_once_and_its_items_run_elsewhere() -> None:
    grid = Grid()
    grid.call(grid.open(), 6)
    held = grid.leased(A1) + grid.leased(A2)

    actions = grid.feed(RevokeHost("alice", "it was stolen"))

    (cut,) = [action for action in actions if isinstance(action, CutHost)]
    assert (cut.host, cut.why, set(cut.peers)) == ("alice", "it was stolen", {ALICE, A1, A2})
    assert {ALICE, A1, A2}.isdisjoint(grid.broker.members.peers)
    assert grid.host("alice").state is HostState.REVOKED
    assert f"{held} items run again elsewhere" in grid.notes()[0]
    assert not grid.broker.hosts.guests.of.keys() & {ALICE, A1, A2}


def test_a_revoked_host_that_is_enrolled_again_may_return() -> None:
    grid = Grid()
    root = grid.open(BOB, B1)
    grid.feed(RevokeHost("alice"))
    grid.feed(JoinHost("alice"))

    grid.come(ALICE, A1)

    assert grid.host("alice").state is HostState.UP
    assert granted(grid.call(root, 4), A1)


def test_a_distant_worker_gets_work_for_the_time_of_a_round_trip() -> None:
    # Given items of a millisecond, and two workers, one of which is 100 ms away
    grid = Grid()
    root = grid.open(ALICE, A1)
    grid.arrive(W1)
    grid.broker.hosts.by_name["alice"].pings.append((1, grid.now - 0.1))
    grid.broker.hosts.answers(ALICE, 1, grid.now)
    grid.broker.scheduler.estimates[PLAIN.fn] = hosts_estimate()
    grid.call(root, 10_000)

    # Then the distant one holds the items that it can run until the next grant arrives, in slices
    # of 0.1 s
    assert grid.broker.members.peers[W1].load_s == pytest.approx(0.1, abs=0.02)
    assert grid.broker.members.peers[A1].load_s == pytest.approx(0.3, abs=0.05)
    longest = max(
        lease.left.count() * lease.item_s for lease in grid.broker.scheduler.leases.values()
    )
    assert longest <= 0.1 + 1e-6


def hosts_estimate() -> Any:
    from resilient_scoop.core.broker.slices import Estimate

    return Estimate(0.001, 1000)


def test_the_figures_of_a_host_show_what_would_be_lost_with_it() -> None:
    grid = Grid()
    grid.call(grid.open(ALICE, A1), 1)
    grid.pass_s(3.0, ALICE)
    grid.now += 2.0

    (alice,) = grid.broker.hosts.statuses(grid.now)

    assert (alice.name, alice.state, alice.workers, alice.busy) == ("alice", "up", 1, 1)
    assert alice.heard_s == pytest.approx(2.0)
    assert alice.slack_s == pytest.approx(8.0)
    assert alice.at_risk_s == pytest.approx(5.0)


def test_the_figures_of_a_host_in_quarantine_show_its_end() -> None:
    grid = Grid()
    grid.open()
    lose(grid, 3)

    alice, _ = grid.broker.hosts.statuses(grid.now)

    assert alice.state == "quarantined"
    assert 0.0 < alice.until_s <= 60.0


def test_a_restarted_broker_waits_for_hosts_that_the_launcher_names() -> None:
    # Given a new broker, and a host that the launcher names to it
    grid = Grid(adopt=True)
    grid.broker.membership.expect(["alice"])
    grid.arrive(AGENT, incarnations=[ORIGIN])
    grid.arrive(ORIGIN)
    assert grid.broker.membership.recovering(grid.now)

    # When its agent and its worker have arrived, or after some time, it no longer waits
    grid.come(ALICE, incarnations=[A1])
    assert grid.broker.membership.recovering(grid.now)
    grid.come(A1)
    assert not grid.broker.membership.recovering(grid.now)


def test_a_restarted_broker_does_not_wait_for_a_host_that_does_not_come() -> None:
    grid = Grid(adopt=True)
    grid.broker.membership.expect(["alice"])
    grid.arrive(AGENT, incarnations=[ORIGIN])
    grid.arrive(ORIGIN)

    grid.now += grid.config.grace_s + 0.1

    assert not grid.broker.membership.recovering(grid.now)


def test_the_end_of_the_launcher_stops_the_processes_of_this_host_only() -> None:
    # Given a run on two hosts
    grid = Grid()
    root = grid.open(ALICE, A1)
    (task,) = granted(grid.call(root, 1), A1)

    # When the launcher has ended
    actions = grid.feed(Interrupt(LAUNCHER_GONE))

    # Then the other host continues, and its finished results are still accepted
    assert sent(actions, ORIGIN, wire.Stop)
    assert not sent(actions, ALICE, wire.Stop) + sent(actions, A1, wire.Stop)
    assert not sent(grid.come(A2), A2, wire.Stop)
    grid.hear(A1, outcomes(0, 0, 1, task=wire.Attempt(1, task.no)))
    assert grid.broker.state.items_done == 1

    # And the broker waits for the processes of other hosts only
    assert not grid.broker.is_deserted
    grid.tell(ORIGIN, wire.Bye())
    grid.tell(AGENT, wire.Bye())
    assert grid.broker.is_deserted


def test_an_acknowledgement_of_a_worker_does_not_count_as_an_answer_of_its_agent() -> None:
    grid = Grid()
    grid.open(ALICE, A1)
    grid.host("alice").pings.append((2, grid.now))

    grid.broker.hosts.answers(A1, 9, grid.now + 1.0)

    assert grid.host("alice").pings
    assert grid.host("alice").rtt_s == 0.0


def test_pings_go_to_the_newest_agent_and_only_its_answers_count() -> None:
    # Given a host with a new agent, and an unanswered ping to the one before
    grid = Grid()
    grid.open(ALICE, A1)
    hosts_ = grid.broker.hosts
    assert hosts_.pings(ALICE) is grid.host("alice")
    grid.host("alice").pings.append((2, grid.now))
    grid.host("alice").is_unresponsive = True
    new = PeerId(b"Asecond..")
    HOSTS[new] = "alice"
    grid.come(new)

    # Then only the new one is asked, and the host counts as reachable, because its agent has
    # answered
    assert hosts_.pings(ALICE) is None
    assert hosts_.pings(new) is grid.host("alice")
    assert not grid.host("alice").is_unresponsive
    assert not grid.host("alice").pings


def test_a_worker_that_has_ended_gets_no_work_and_keeps_its_finished_items() -> None:
    # Given a worker with items, whose agent reports its end
    grid = Grid()
    root = grid.open(ALICE, A1, BOB, B1)
    grid.call(root, 2)
    held = grid.leased(A1)
    assert held == 1
    (attempt,) = grid.broker.members.peers[A1].leases
    actions = grid.hear(ALICE, wire.Alive([], [A1]))
    assert A1 not in grid.broker.scheduler.workers

    # When there is more to do, and time passes, then it gets no work, and no other worker gets its
    # items
    actions += grid.call(root, 2, call=1)
    for _ in range(40):
        grid.now += 0.5
        actions += grid.hear(ALICE, wire.Alive([], [A1]))
        actions += grid.hear(BOB, wire.Alive([B1]))
        actions += grid.tell(AGENT, wire.Alive([ORIGIN]))
        actions += grid.feed(Tick())
    assert granted(actions, A1) == []
    assert grid.leased(A1) == held

    # When the result arrives, and then the final report of its end, then nothing is computed again
    index = next(iter(grid.broker.members.peers[A1].leases.values())).left.starts[0]
    grid.hear(A1, outcomes(0, index, index + 1, task=attempt))
    grid.hear(ALICE, wire.ProcessLost(A1, -9, "crash", None, 0))
    assert grid.broker.state.items_done == 1
    assert grid.broker.state.tally.counts.resubmitted == 0


def test_unfinished_items_of_an_ended_worker_run_again_when_its_end_is_reported() -> None:
    grid = Grid()
    root = grid.open(ALICE, A1, BOB, B1)
    grid.call(root, 2)
    grid.hear(ALICE, wire.Alive([], [A1]))
    grid.hear(ALICE, wire.ProcessLost(A1, -9, "crash", None, 0))
    assert grid.broker.state.tally.counts.resubmitted == 1


def test_a_new_broker_greets_an_ended_worker_only_for_its_announced_results() -> None:
    # Given a new broker, whose script makes a call of two items
    grid = Grid(epoch=2)
    root = grid.open(ALICE, BOB)
    grid.call(root, 2)
    grid.hear(ALICE, wire.Alive([], [A1]))

    # When the agent of an ended worker announces the result of one
    marks = digests(0, 1)
    held = [
        wire.Held(wire.Attempt(1, 9), ROOT, 0, FN, [(0, 1)], marks[: len(marks) // 2]),
        wire.Held(wire.Attempt(1, 8), ROOT, 0, FN, [(1, 2)], b"other..."),
    ]
    (welcome,) = sent(grid.come(A1, held=held), A1, wire.Welcome)

    # Then no other worker computes it; results that do not belong to this run are dropped
    assert welcome.dropped == [wire.Attempt(1, 8)]
    (task,) = granted(grid.come(B1), B1)
    assert (task.start, grid.leased(A1)) == (1, 1)
