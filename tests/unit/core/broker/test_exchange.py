"""The exchange: turns, messages before and after the commit, bad messages, pages."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from resilient_scoop.config import BrokerConfig
from resilient_scoop.core.broker.broker import Broker
from resilient_scoop.core.broker.exchange import Exchange, Mail
from resilient_scoop.core.events import Put, Table
from resilient_scoop.core.facts.state import DurableState
from resilient_scoop.core.link import Link
from resilient_scoop.ids import ROOT, PeerId
from resilient_scoop.wire import messages as wire
from tests.fakes import MemoryJournal
from tests.unit.bench import AGENT, FN, ORIGIN, PLAIN, W1, calls, digests, outcomes, part

RUN = b"r" * 16


class Office:
    """An exchange, its journal, and the peers' ends of the links."""

    def __init__(self, **config: int) -> None:
        self.now = 100.0
        self.refusals: list[str] = []
        self.journal = MemoryJournal(RUN)
        settings = BrokerConfig(callables_max=4, **config)  # type: ignore[arg-type]
        broker = Broker(settings, DurableState(RUN), epoch=1, seed=7)
        defines = broker.callable_cache(self.journal)
        self.exchange = Exchange(broker, RUN[:8], self.refusals.append, defines)
        self.ends: dict[PeerId, Link] = {}
        self.number = 0

    def say(self, peer: PeerId, *messages: wire.Up) -> None:
        end = self.ends.setdefault(peer, Link(RUN[:8], 1))
        packed = end.pack([wire.encode(message) for message in messages])
        self.exchange.receive(peer, packed, self.now)

    def turn(self) -> list[Mail]:
        """Take a turn; return the messages that are sent at once."""
        self.number, changes, mails = self.exchange.turn(self.now)
        self.journal.commit(changes)
        return mails

    def commit(self) -> list[Mail]:
        return self.exchange.committed(self.number, self.journal)

    def step(self) -> list[Mail]:
        return self.turn() + self.commit()

    def begin(self) -> wire.Attempt:
        self.say(AGENT, wire.Hello("agent", "n", "a", 1))
        self.say(ORIGIN, wire.Hello("origin", "n", "o", 2))
        self.say(W1, wire.Hello("worker", "n", "w", 3))
        self.step()
        assert self.exchange.broker.members.root is not None
        return self.exchange.broker.members.root[0]


def read(mails: Sequence[Mail], to: PeerId) -> list[wire.Down]:
    return [wire.decode_down(f) for mail in mails if mail.to == to for f in mail.frames[1:]]


def acks(mails: Sequence[Mail], to: PeerId) -> list[int]:
    return [wire.unpack_header(mail.frames[0]).ack for mail in mails if mail.to == to]


def test_grants_are_sent_at_once_and_outcomes_after_the_commit() -> None:
    # Given a call
    office = Office()
    root = office.begin()
    office.say(ORIGIN, PLAIN, *calls(part(0, 0, 1), attempt=root))

    # When the turn is taken, then it is granted before anything is durable
    assert [type(m) for m in read(office.turn(), W1)] == [wire.Define, wire.Grant]
    office.commit()

    # And when its outcome arrives, then it is sent to the parent after the commit
    office.say(W1, outcomes(0, 0, 1))
    assert read(office.turn(), ORIGIN) == []
    assert [type(m) for m in read(office.commit(), ORIGIN)] == [wire.Outcomes]


def test_a_held_record_is_written_soon_if_a_worker_waits_for_an_answer() -> None:
    # Given a script that has made a call, which no worker can take yet
    office = Office()
    office.say(AGENT, wire.Hello("agent", "n", "a", 1))
    office.say(ORIGIN, wire.Hello("origin", "n", "o", 2))
    office.step()
    assert office.exchange.broker.members.root is not None
    root = office.exchange.broker.members.root[0]
    office.say(ORIGIN, PLAIN, *calls(part(0, 0, 1), attempt=root))
    office.turn()
    assert not office.exchange.is_awaited, "its record may be held"

    # Then the answer to a worker does not wait for the time limit of that held record
    office.say(W1, wire.Hello("worker", "n", "w", 3))
    office.turn()
    assert office.exchange.is_awaited


def test_a_message_is_acknowledged_when_it_is_durable() -> None:
    office = Office()
    office.begin()
    office.say(W1, outcomes(0, 0, 1))

    assert not any(ack >= 2 for ack in acks(office.turn(), W1))
    office.commit()

    office.now += 5.0
    assert acks(office.exchange.beats(office.now), W1) == [2]


def test_turns_are_delivered_in_the_order_in_which_they_were_taken() -> None:
    # Given two outcomes in two turns, neither of them durable
    office = Office()
    root = office.begin()
    office.say(ORIGIN, PLAIN, *calls(part(0, 0, 2), attempt=root))
    office.step()
    office.say(W1, outcomes(0, 1, 2))
    office.turn()
    office.say(W1, outcomes(0, 0, 1))
    office.turn()

    # When both become durable together, then they are sent to the parent in that order
    messages = [m for m in read(office.commit(), ORIGIN) if isinstance(m, wire.Outcomes)]
    assert [m.items[0].start for m in messages] == [1, 0]


def test_no_message_of_a_turn_is_sent_before_the_turn_is_durable() -> None:
    office = Office()
    office.begin()
    office.say(W1, wire.Const("name", b"digest", b"payload"))
    number, changes, _ = office.exchange.turn(office.now)
    assert [change.table for change in changes if isinstance(change, Put)] == [Table.CONST]

    assert office.exchange.committed(number - 1, office.journal) == []


def test_a_message_of_another_epoch_is_answered_with_our_epoch_and_not_handled() -> None:
    office = Office()
    stranger = Link(RUN[:8], 0)

    office.exchange.receive(W1, stranger.beat(), office.now)

    (mail,) = [mail for mail in office.turn() if mail.to == W1]
    assert wire.unpack_header(mail.frames[0]).epoch == 1
    assert office.exchange.broker.members.peers == {}


BAD = {
    "no frames": [],
    "a short header": [b"x"],
    "another protocol": [b"XXXX" + bytes(33)],
    "another run": [wire.Header(b"another.", 0, 1, 1, 0).pack()],
}


@pytest.mark.parametrize("frames", BAD.values(), ids=BAD.keys())
def test_bytes_that_are_not_a_message_are_refused(frames: list[bytes]) -> None:
    office = Office()

    office.exchange.receive(W1, frames, office.now)

    assert office.exchange.refused == 1
    assert office.exchange.links == {}


ATTEMPT = wire.Attempt(1, 1)
WRONG: dict[str, list[wire.Up]] = {
    "calls without arguments": [wire.Calls(ROOT, ATTEMPT, [part(0, 0, 1)])],
    "arguments without calls": [wire.Args([b"x"])],
    "too few arguments": [wire.Calls(ROOT, ATTEMPT, [part(0, 0, 2)]), wire.Args([b"x"])],
    "short digests": [
        wire.Calls(ROOT, ATTEMPT, [wire.Part(0, 0, 1, FN, b"x", last=True)]),
        wire.Args([b""]),
    ],
    "no path": calls(part(0, 0, 1), parent="0.x]", attempt=ATTEMPT),
    "an empty outcome": [wire.Outcomes(ROOT, [wire.Outcome(0, 0, FN, b"", [])])],
    "a failure of none": [wire.Outcomes(ROOT, [wire.Outcome(0, 0, FN, digests(0), [b"v"], [3])])],
    "no observation": [wire.Observed(ROOT, ATTEMPT, [])],
    "a span upside down": [
        wire.Hello("worker", "n", "w", 1, [wire.Held(ATTEMPT, ROOT, 0, FN, [(3, 1)], b"")])
    ],
}


@pytest.mark.parametrize("messages", WRONG.values(), ids=WRONG.keys())
def test_a_contradictory_bundle_changes_nothing(messages: list[wire.Up]) -> None:
    # Given a busy worker
    office = Office()
    office.begin()
    before = office.exchange.broker.state.seq

    # When it sends an impossible message
    office.say(W1, *messages)
    office.step()

    # Then the message is refused and reported, nothing is recorded, and the next message is handled
    assert office.exchange.refused == 1
    assert "refused" in office.refusals[0]
    assert office.exchange.broker.state.seq == before
    office.say(W1, wire.Bye())
    office.step()
    assert W1 not in office.exchange.broker.members.peers


def test_timers_run_although_many_messages_arrive() -> None:
    # Given a worker that became silent, and others that always send
    office = Office()
    office.begin()

    # When messages arrive in every turn
    for _ in range(60):
        office.now += 0.5
        office.say(AGENT, wire.Alive([ORIGIN]))
        office.step()

    # Then its lease still ends
    assert W1 not in office.exchange.broker.members.peers
    assert ORIGIN in office.exchange.broker.members.peers


def test_a_history_comes_in_pages_of_outcomes_and_observations() -> None:
    # Given a parent with three outcomes and an observation on record, and pages that hold little
    office = Office(page_bytes=60)
    root = office.begin()
    office.say(ORIGIN, PLAIN, *calls(part(0, 0, 3), attempt=root))
    for index in range(3):
        office.say(W1, outcomes(0, index, index + 1))
    seen = wire.Observation(0, "done", 1, b"x")
    office.say(ORIGIN, wire.Observed(ROOT, root, [seen]))
    office.step()

    # When it requests page after page
    heads: list[wire.History] = []
    records: list[wire.Down] = []
    while not heads or not heads[-1].last:
        after = heads[-1].upto if heads else 0
        office.say(ORIGIN, wire.HistoryWanted(ROOT, root, after, no=len(heads)))
        head, *more = read(office.step(), ORIGIN)
        assert isinstance(head, wire.History)
        assert head.no == len(heads)
        heads.append(head)
        records += more

    # Then it has all of them, in order, and the number of calls that it had made
    assert len(heads) > 2
    assert [type(record) for record in records] == [wire.Outcomes] * 3 + [wire.Observed]
    assert heads[0].calls == 1


def test_a_grant_whose_parent_has_ended_in_the_same_commit_is_not_sent() -> None:
    # Given arguments that must be read from the journal, and a parent that ends before the commit
    office = Office(args_bytes_max=0)
    root = office.begin()
    office.say(ORIGIN, PLAIN, *calls(part(0, 0, 1), attempt=root))
    office.turn()
    (grant,) = [m for m in read(office.commit(), W1) if isinstance(m, wire.Grant)]
    attempt = wire.Attempt(1, grant.tasks[0].no)
    below = calls(part(0, 0, 1), parent=f"{ROOT}.0[0]", attempt=attempt)
    office.say(W1, wire.Parked(attempt, 0), *below)
    office.turn()
    office.say(W1, outcomes(0, 0, 1))
    office.turn()

    # When all becomes durable together, then no task without arguments is sent
    mails = office.commit()
    tasks = [t for m in read(mails, W1) if isinstance(m, wire.Grant) for t in m.tasks]
    assert tasks == []
    assert office.exchange.broker.scheduler.leases == {}


def test_links_of_dead_processes_are_removed() -> None:
    office = Office()
    office.begin()
    office.say(AGENT, wire.ProcessLost(W1, -9, "crash"))
    office.step()

    for _ in range(30):
        office.now += 1.0
        office.say(AGENT, wire.Alive([ORIGIN]))
        office.step()
        office.exchange.beats(office.now)

    assert set(office.exchange.links) == {AGENT, ORIGIN}


def test_messages_of_a_broken_connection_are_sent_again() -> None:
    office = Office()
    office.begin()

    again = office.exchange.reconnected(W1)

    assert [type(m) for m in read(again, W1)] == [wire.Welcome]
    assert office.exchange.reconnected(PeerId(b"nobody")) == []


def other(number: int) -> wire.Define:
    """Return a callable, as a lambda in a loop makes one."""
    fn = b"%016d" % number
    return wire.Define(fn, fn[::-1], "m:f", b"pickle", wire.Options())


def asked(number: int, attempt: wire.Attempt) -> list[wire.Up]:
    parts = [wire.Part(number, 0, 1, other(number).fn, digests(0), last=True)]
    return [wire.Calls(ROOT, attempt, parts), wire.Args([b"arg"])]


def answer(number: int) -> wire.Outcomes:
    print_ = other(number).fingerprint
    return wire.Outcomes(ROOT, [wire.Outcome(number, 0, print_, digests(0), [b"v"], [])])


def test_callables_that_are_not_in_use_are_dropped_and_come_back_when_named() -> None:
    # Given many calls with different callables, and an unfinished call of the first callable
    office = Office()
    root = office.begin()
    office.say(ORIGIN, other(0), *asked(0, root))
    for number in range(1, 30):
        office.say(ORIGIN, other(number), *asked(number, root))
        office.step()
        office.say(W1, answer(number))
        office.step()

    # Then only the latest callables are kept, and the one that is in use
    broker = office.exchange.broker
    assert len(broker.state.defines) <= 5
    assert other(0).fn in broker.state.defines
    assert len(broker.members.peers[W1].functions) <= 5
    assert len(broker.scheduler.estimates) <= 5

    # When a dropped callable is called again, without its definition
    again = [wire.Part(40, 0, 1, other(3).fn, digests(0), last=True)]
    office.say(ORIGIN, wire.Calls(ROOT, root, again), wire.Args([b"arg"]))
    granted = read(office.step(), W1)

    # Then the worker gets its definition, and its outcome counts
    assert [each.fn for each in granted if isinstance(each, wire.Define)] == [other(3).fn]
    office.say(
        W1,
        wire.Outcomes(ROOT, [wire.Outcome(40, 0, other(3).fingerprint, digests(0), [b"v"], [])]),
    )
    office.step()
    assert 40 in broker.state.parent(ROOT).finished


def test_callables_that_are_not_durable_are_not_dropped() -> None:
    office = Office()
    root = office.begin()
    for number in range(30):
        office.say(ORIGIN, other(number), *asked(number, root))
        office.turn()
        office.say(W1, answer(number))
        office.turn()
    assert len(office.exchange.broker.state.defines) == 30
    office.commit()
    assert len(office.exchange.broker.state.defines) <= 4
