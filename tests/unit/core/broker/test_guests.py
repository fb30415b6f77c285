"""Which messages processes of other hosts may send, and what happens if they break the rules."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from resilient_scoop.core.broker.exchange import Mail
from resilient_scoop.core.broker.guests import LIES_MAX, OVER_MIN, Guest
from resilient_scoop.core.broker.host_life import HostState, KnownHost
from resilient_scoop.core.broker.leases import Lease, OpenBatch, Peer
from resilient_scoop.core.facts.batch import Batch
from resilient_scoop.core.facts.intervals import Intervals
from resilient_scoop.core.facts.parent import ParentFacts
from resilient_scoop.core.link import Link
from resilient_scoop.ids import ROOT, PeerId
from resilient_scoop.wire import messages as wire
from tests.unit.bench import AGENT, FN, ORIGIN, PLAIN, W1, calls, digests, outcomes, part
from tests.unit.core.broker.test_exchange import RUN, Office, read

ALICE, A1, A2 = PeerId(b"Aalice..."), PeerId(b"Walice.1."), PeerId(b"Walice.2.")
BOB, B1 = PeerId(b"Abob....."), PeerId(b"Wbob...1.")


class Door(Office):
    """An exchange with a remote door: host alice with one worker, host bob with one."""

    def heard(self, host: str, peer: PeerId, *messages: wire.Up) -> list[Mail]:
        end = self.ends.setdefault(peer, Link(RUN[:8], 1))
        packed = end.pack([wire.encode(message) for message in messages])
        self.exchange.receive(peer, packed, self.now, host)
        return self.step()

    def arrive(self, host: str, peer: PeerId) -> None:
        role = {b"W": "worker", b"A": "agent"}[peer[:1]]
        self.heard(host, peer, wire.Hello(role, host, f"{host}:{role}", 1))

    def open(self) -> wire.Attempt:
        """Let all processes arrive, and the script make a call of four items; return the root's attempt."""
        self.say(AGENT, wire.Hello("agent", "n", "a", 1))
        self.say(ORIGIN, wire.Hello("origin", "n", "o", 2))
        self.step()
        for host, *peers in (("alice", ALICE, A1), ("bob", BOB, B1)):
            for peer in peers:
                self.arrive(host, peer)
        root = self.exchange.broker.members.root
        assert root is not None
        return root[0]

    def work(self, items: int = 4) -> tuple[wire.Attempt, wire.Attempt]:
        """Grant work to both workers; return an attempt of each."""
        root = self.open()
        self.say(ORIGIN, PLAIN, *calls(part(0, 0, items), attempt=root))
        self.step()
        return self.held(A1)[0], self.held(B1)[0]

    def held(self, peer: PeerId) -> list[wire.Attempt]:
        return list(self.exchange.broker.members.peers[peer].leases)

    def state(self, host: str) -> HostState:
        return self.exchange.broker.hosts.by_name[host].state


def test_a_guest_gets_work_and_its_results_count() -> None:
    door = Door()
    mine, _ = door.work()
    (lease,) = [
        each for each in door.exchange.broker.scheduler.leases.values() if each.attempt == mine
    ]
    start = lease.left.starts[0]

    mails = door.heard("alice", A1, outcomes(0, start, start + 1, task=mine))

    assert [type(m) for m in read(mails, ORIGIN)] == [wire.Outcomes]
    assert door.refusals == []
    assert door.exchange.broker.hosts.by_name["alice"].done == 1


NEVER = wire.Attempt(1, 99)
# By rule: GU1 messages that only the script may send, GU2 attempts.
LIES: dict[str, Sequence[wire.Up]] = {
    "an outcome of an attempt never given": [outcomes(0, 0, 1, task=NEVER)],
    "an outcome of another epoch": [outcomes(0, 0, 1, task=wire.Attempt(7, 1))],
    "an outcome of an epoch before the first": [outcomes(0, 0, 1, task=wire.Attempt(0, 1))],
    "an outcome in the script's name": [outcomes(0, 0, 1, parent=ROOT)],
    "an item parked": [wire.Parked(NEVER, 0)],
    "an item given back": [wire.Returned(NEVER, 0)],
    "an item that is stuck": [wire.Stuck(NEVER, 0)],
    "a wish to begin": [wire.BeginWanted(NEVER, 0)],
    "the script's calls": calls(part(1, 0, 1), attempt=wire.Attempt(1, 1)),
    "calls of a parent of others": calls(part(0, 0, 1), parent="0.0[1]", attempt=NEVER),
    "the script's observation": [
        wire.Observed(ROOT, NEVER, [wire.Observation(0, "order", 0, b"x")])
    ],
    "the script's history": [wire.HistoryWanted(ROOT, NEVER, 0)],
    "a cancellation": [wire.Cancel(ROOT, NEVER, 0, 0)],
    "calls given up": [wire.Abandon(ROOT, NEVER, [0])],
    "the script's progress": [wire.Progress("", NEVER, 0, 0, FN, b"", 1, 2)],
    "another's progress": [wire.Progress(ROOT, NEVER, 0, 0, FN, digests(0), 1, 2)],
    "a future that cannot continue": [wire.Halted(ROOT, NEVER, "no")],
    "output of the script": [wire.Output(NEVER, 0, b"text")],
    "input of the script": [wire.Input(NEVER, 0, b"here", b"text")],
    "the end of the script": [wire.RunEnded(NEVER, 0, failed=False)],
    "what only an agent says": [wire.Alive([A1])],
    "a death": [wire.ProcessLost(B1, -9, "crash")],
    "to be the script": [wire.Hello("origin", "alice", "origin", 1)],
    "to be an agent now": [wire.Hello("agent", "alice", "a", 1)],
    "to be of another host": [wire.Hello("worker", "bob", "w", 1)],
    "to hold what was never given": [
        wire.Hello("worker", "alice", "w", 1, [wire.Held(NEVER, ROOT, 0, FN, [(0, 1)], digests(0))])
    ],
}


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES.keys())
def test_a_worker_that_lies_is_dropped_and_named_and_changes_nothing(lie: list[wire.Up]) -> None:
    # Given workers of two hosts at work
    door = Door()
    door.work()
    broker = door.exchange.broker
    seq, mine = broker.state.seq, len(broker.members.peers[A1].leases)
    assert mine

    # When one sends a message that it may not send
    mails = door.heard("alice", A1, *lie)

    # Then it is dropped, its items run elsewhere, and its agent is asked to replace it
    assert A1 not in broker.members.peers
    assert broker.state.seq == seq
    assert broker.ended is None
    assert [m.incarnation for m in read(mails, ALICE) if isinstance(m, wire.Kill)] == [A1]
    (text,) = door.refusals
    assert text.startswith("worker alice:worker of host alice is dropped: ")
    assert text.endswith(f"(1 of {LIES_MAX} such acts)")
    assert door.state("alice") is HostState.UP

    # And its later messages are ignored
    before = door.exchange.refused
    door.heard("alice", A1, wire.Bye())
    assert door.exchange.refused == before + 1
    assert A1 not in door.exchange.links


def test_a_dropped_worker_is_replaced_when_its_agent_arrives_after_that() -> None:
    # Given a worker that is dropped before the broker knows its agent
    door = Door()
    door.arrive("alice", A1)
    door.heard("alice", A1, wire.RunEnded(NEVER, 0, failed=False))
    assert door.refusals

    # When the agent arrives and reports that the worker runs, then it is told to end it
    door.arrive("alice", ALICE)
    mails = door.heard("alice", ALICE, wire.Alive([A1]))
    assert [m.incarnation for m in read(mails, ALICE) if isinstance(m, wire.Kill)] == [A1]

    # And it is not told again after the worker has ended
    mails = door.heard("alice", ALICE, wire.Alive([]))
    assert [m for m in read(mails, ALICE) if isinstance(m, wire.Kill)] == []


def test_a_guest_may_not_report_an_attempt_of_another_guest() -> None:
    door = Door()
    _, others = door.work()

    door.heard("alice", A1, outcomes(0, 0, 1, task=others))

    assert "which it was never given" in door.refusals[0]


def test_items_that_do_not_belong_to_an_attempt_are_refused() -> None:
    door = Door()
    mine, _ = door.work()
    lease = door.exchange.broker.scheduler.leases[mine]
    other = lease.left.stops[-1]

    door.heard("alice", A1, outcomes(0, other, other + 1, task=mine))

    assert f"it names items that attempt 1.{mine.no} was not given" in door.refusals[0]


AGENT_LIES: dict[str, wire.Up] = {
    "it vouches for a process here": wire.Alive([ORIGIN]),
    "it vouches for another host's": wire.Alive([B1]),
    "it reports another host's death": wire.ProcessLost(B1, -9, "crash"),
    "it reports the origin's death": wire.ProcessLost(ORIGIN, -9, "crash"),
    "it blames what was not given": wire.ProcessLost(A1, -9, "crash", NEVER, 0, ROOT, 0),
    "it blames for a process never heard": wire.ProcessLost(A2, -9, "crash", NEVER, 0, ROOT, 0),
    "it does a worker's work": outcomes(0, 0, 1, task=NEVER),
}


@pytest.mark.parametrize("lie", AGENT_LIES.values(), ids=AGENT_LIES.keys())
def test_an_agent_that_lies_loses_its_host(lie: wire.Up) -> None:
    door = Door()
    door.work()
    broker = door.exchange.broker

    mails = door.heard("alice", ALICE, lie)

    assert {ALICE, A1}.isdisjoint(broker.members.peers)
    assert {ORIGIN, B1} <= broker.members.peers.keys()
    assert door.state("alice") is HostState.LOST
    assert [type(m) for m in read(mails, ALICE)] == [wire.Stop]
    broker.check()


def test_the_third_lie_revokes_the_host() -> None:
    # Given a host of which one worker has lied already
    door = Door()
    door.work()
    for number, peer in enumerate((A1, A2)):
        if number:
            door.arrive("alice", peer)
        door.heard("alice", peer, wire.Output(NEVER, 0, b"x"))
    assert door.exchange.cuts == []

    # When one lies for the third time
    door.heard("alice", ALICE, wire.Alive([ORIGIN]))

    # Then the host is cut off, and its messages are ignored
    (cut,) = door.exchange.cuts
    assert cut.host == "alice"
    assert "3 times" in cut.why
    assert door.state("alice") is HostState.REVOKED
    refused = door.exchange.refused
    door.heard("alice", PeerId(b"Wnew....."), wire.Hello("worker", "alice", "w", 1))
    assert door.exchange.refused == refused + 1
    assert not door.exchange.links.keys() & {ALICE, A1, A2, PeerId(b"Wnew.....")}


def test_a_guest_that_uses_an_identity_of_another_host_is_refused_and_the_owner_keeps_it() -> None:
    door = Door()
    door.work()

    door.heard("bob", A1, wire.Bye())

    assert "identity of alice:worker of host alice" in door.refusals[0]
    assert A1 in door.exchange.broker.members.peers
    assert door.exchange.broker.hosts.by_name["bob"].lies == 1


def test_a_guest_that_uses_an_identity_of_this_host_is_refused() -> None:
    door = Door()
    door.work()

    door.heard("bob", ORIGIN, wire.Hello("worker", "bob", "w", 1))

    assert "a process of this host" in door.refusals[0]
    assert door.exchange.broker.members.root is not None


def test_a_process_of_this_host_gets_its_identity_back() -> None:
    # Given a guest that uses the identity of a worker here, before that worker has arrived
    door = Door()
    door.work()
    door.arrive("alice", W1)
    del door.ends[W1]

    # When the worker arrives
    door.say(W1, wire.Hello("worker", "n", "w", 3))
    door.step()

    # Then the worker has its identity, and the host counts as a liar
    peer = door.exchange.broker.members.peers[W1]
    assert (peer.host, peer.node) == (None, "n")
    assert door.exchange.broker.hosts.by_name["alice"].lies == 1
    door.exchange.broker.check()


def test_a_guest_whose_first_message_is_not_hello_is_refused() -> None:
    door = Door()
    door.open()

    door.heard("alice", A2, wire.Bye())

    assert "before it has said who it is" in door.refusals[0]


def test_unreadable_messages_of_a_guest_count_as_lies() -> None:
    door = Door()
    door.open()

    door.exchange.receive(A1, [b"GET / HTTP/1.1"], door.now, "alice")
    door.step()

    assert "cannot be read" in door.refusals[0]
    assert A1 not in door.exchange.broker.members.peers


def test_a_guest_may_name_attempts_from_before_a_restart_with_its_hello_only() -> None:
    # Given a broker of a later epoch
    door = Door()
    door.exchange.broker.hosts.guests.epoch = 2
    guests = door.exchange.broker.hosts.guests
    guest = guests.of[A1] = Guest(KnownHost("alice"))
    old, other = wire.Attempt(1, 5), wire.Attempt(1, 6)
    held = wire.Held(old, ROOT, 0, FN, [(3, 5)], digests(3, 4))
    hello = wire.Hello("worker", "alice", "w", 1, [held])

    # Then results that it owes may come with the Hello, and results of held items later
    assert guests.judge(A1, [hello, outcomes(0, 0, 1, task=other)]) == ""
    assert guests.judge(A1, [hello, outcomes(0, 1, 3, task=old)]) == ""
    assert guests.judge(A1, [outcomes(0, 3, 4, task=old)]) == ""
    assert "never given" in guests.judge(A1, [outcomes(0, 0, 1, task=other)])
    assert "not given" in guests.judge(A1, [outcomes(0, 5, 6, task=old)])
    assert guest.role == "worker"


def test_the_record_of_a_guest_keeps_held_attempts_and_a_bounded_number_of_ended_ones() -> None:
    # Given a guest that has held at most five attempts at a time
    guest = Guest(KnownHost("alice"))
    peer = Peer(A1, "worker", "alice", "w", 0.0, 0.0, host="alice", given=guest)
    batch = OpenBatch(ParentFacts(ROOT, b""), Batch(0))
    leases = [
        Lease(wire.Attempt(1, no), batch, Intervals([(no, no + 1)]), peer, FN, 0.1, 0.0)
        for no in range(1000)
    ]
    for at, lease in enumerate(leases):
        guest.give(lease)
        if at >= 5:
            guest.end(leases[at - 5].attempt)

    # Then it may name these, and those that ended recently
    assert all(lease.attempt in guest.given for lease in leases[-5 - OVER_MIN :])
    assert len(guest.given) <= 6 + OVER_MIN

    # And after it was lost with many attempts, it may name all of them
    for lease in leases:
        guest.give(lease)
    for lease in leases:
        guest.end(lease.attempt)
    assert all(lease.attempt in guest.given for lease in leases)


def test_a_hello_that_comes_after_the_death_of_its_sender_is_kept_until_it_counts_as_lost() -> None:
    # Given a worker whose death is reported before its Hello arrives
    door = Door()
    door.open()
    door.heard("alice", ALICE, wire.ProcessLost(A2, -9, "crash"))
    door.arrive("alice", A2)

    # When the time for its last messages is over
    for _ in range(24):
        door.now += 0.5
        door.heard("alice", ALICE, wire.Alive([A1]))
        door.heard("bob", BOB, wire.Alive([B1]))
        door.say(AGENT, wire.Alive([ORIGIN]))
        door.exchange.beats(door.now)
        door.step()
        door.exchange.broker.check()

    # Then the worker is lost, and no rule was broken
    assert A2 not in door.exchange.broker.members.peers
    assert not [text for text in door.refusals if "dropped" in text]
