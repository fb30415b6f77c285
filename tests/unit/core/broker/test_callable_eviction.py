"""Rounds of eviction: which processes are asked, which callables are announced again or erased."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from resilient_scoop.core.broker import callable_eviction
from resilient_scoop.core.broker.callable_cache import CallableCache
from resilient_scoop.core.broker.callable_eviction import (
    _NEXT,
    KEPT_BYTES_MAX,
    RoundEvent,
    RoundPhase,
)
from resilient_scoop.core.events import Change, Table
from resilient_scoop.core.parent.parent import Parent
from resilient_scoop.ids import ROOT
from resilient_scoop.wire import messages as wire
from tests.unit.bench import AGENT, FN, ORIGIN, PLAIN, W1, digests
from tests.unit.core.broker.test_exchange import Office, answer, asked, other, read
from tests.unit.core.worker.test_worker import Desk


def test_unused_callables_are_forgotten_and_announced_before_their_next_call() -> None:
    # Given a process that has announced two callables and knows a third from the broker
    desk = Desk()
    desk.worker.define(other(1))
    desk.worker.define(other(2))
    desk.hear(other(3))
    desk.messages()

    # When it is asked to forget
    desk.hear(wire.Forget(7, []))

    # Then it confirms this, and has no callable left
    assert desk.messages() == [wire.Forgotten(7)]
    assert not desk.worker.callables.known
    assert not desk.worker.callables.announced

    # And it announces a callable again when it calls it again
    desk.worker.define(other(1))
    assert desk.messages() == [other(1)]


def test_callables_of_a_parent_are_announced_after_its_calls_and_before_the_answer() -> None:
    # Given a call that is open, and one that is made but not sent
    desk = Desk()
    parent = desk.worker.parents[ROOT] = Parent(ROOT, wire.Attempt(1, 5))
    desk.worker.define(other(1))
    desk.worker.define(other(2))
    parent.begin(other(1).fn, other(1).fingerprint)
    closed = parent.begin(other(2).fn, other(2).fingerprint)
    parent.add(closed, b"", [], last=True)

    # When it is asked
    desk.hear(wire.Forget(7, []))

    # Then the order is: earlier messages, earlier calls, callables that it still calls, the answer
    messages = desk.messages()
    kinds = [type(each) for each in messages]
    assert kinds == [wire.Define, wire.Define, wire.Calls, wire.Args, wire.Define, wire.Forgotten]
    assert messages[4] == other(1)
    assert list(desk.worker.callables.known) == [other(1).fn]


def test_running_and_queued_callables_are_kept() -> None:
    desk = Desk()
    work = desk.grant()
    desk.hear(other(4))

    desk.hear(wire.Forget(7, [other(4).fn]))
    assert set(desk.worker.callables.known) == {FN, other(4).fn}

    # When the task is dropped while it runs, then its callable is still there
    desk.hear(wire.Drop([work.attempt]))
    desk.hear(wire.Forget(8, []))
    assert not desk.worker.callables.known
    assert work.callable == PLAIN


def test_a_new_broker_gets_all_announcements_again() -> None:
    desk = Desk()
    desk.worker.define(other(1))
    desk.messages(acknowledge=True)

    hello, *rest = desk.meet(2)

    assert isinstance(hello, wire.Hello)
    assert rest == [other(1)]


def forgets(mails: Any, to: Any) -> list[wire.Forget]:
    return [each for each in read(mails, to) if isinstance(each, wire.Forget)]


def generations(office: Office, root: wire.Attempt, *numbers: int) -> list[Any]:
    """Let the script call another callable each time; return what was sent."""
    mails: list[Any] = []
    for number in numbers:
        office.say(ORIGIN, other(number), *asked(number, root))
        mails += office.step()
        office.say(W1, answer(number))
        mails += office.step()
    return mails


def test_a_round_begins_after_enough_new_callables_and_does_not_ask_agents() -> None:
    office = Office()
    root = office.begin()

    assert not forgets(generations(office, root, 0, 1, 2, 3), ORIGIN)
    mails = generations(office, root, 4)

    number = (1 << 32) + 1
    assert [each.no for each in forgets(mails, ORIGIN)] == [number]
    assert [each.no for each in forgets(mails, W1)] == [number]
    assert not forgets(mails, AGENT)
    rounds = office.exchange.broker.rounds
    assert rounds.waiting == {ORIGIN, W1}
    office.say(ORIGIN, wire.Forgotten(number))
    office.say(W1, wire.Forgotten(number - 1))  # an earlier broker's
    office.step()
    assert rounds.waiting == {W1}
    assert not rounds.is_over
    office.say(W1, wire.Bye())
    office.step()
    assert rounds.is_over


def test_a_round_begins_earlier_for_large_callables() -> None:
    office = Office()
    office.begin()
    large = wire.Define(b"large", b"large", "m:f", bytes(KEPT_BYTES_MAX), wire.Options())

    office.say(ORIGIN, large)

    assert len(forgets(office.step(), ORIGIN)) == 1


def test_callables_announced_again_begin_no_round() -> None:
    # Given a round after which more callables are announced again than are new
    office = Office()
    root = office.begin()
    for number in range(50):
        office.say(ORIGIN, other(number), *asked(number, root))
    office.step()
    office.say(ORIGIN, *map(other, range(50)))

    # When the number of announcements would be enough for another round
    office.say(ORIGIN, *map(other, range(100, 105)))
    assert not forgets(office.step(), ORIGIN)

    # Then it begins only when enough of them are new
    office.say(ORIGIN, *map(other, range(200, 250)))
    assert len(forgets(office.step(), ORIGIN)) == 1


def test_a_worker_keeps_callables_that_its_leases_need() -> None:
    office = Office()
    root = office.begin()
    office.say(ORIGIN, other(50), *asked(50, root))
    office.step()

    mails = generations(office, root, 0, 1, 2, 3, 4)

    assert [each.keep for each in forgets(mails, W1)] == [[other(50).fn]]
    known = office.exchange.broker.members.peers[W1].functions
    assert other(50).fn in known
    assert not known & {other(number).fn for number in (0, 1, 2)}


def test_a_lost_worker_that_sends_again_is_asked_at_once() -> None:
    office = Office()
    office.begin()
    broker = office.exchange.broker
    broker.members.peers[W1].alive_at -= 100.0
    broker.membership.expire(office.now)
    assert W1 not in broker.members.peers

    office.say(W1, wire.Progress("", wire.Attempt(1, 9), 0, 0, b"", b"", 1, 2))

    assert [each.keep for each in forgets(office.step(), W1)] == [[]]


def test_a_round_waits_for_a_silent_origin_that_keeps_its_role() -> None:
    office = Office()
    office.begin()
    broker = office.exchange.broker
    broker.members.peers[ORIGIN].alive_at -= 100.0
    broker.membership.expire(office.now)

    office.say(W1, *map(other, range(5)))

    assert len(forgets(office.step(), ORIGIN)) == 1
    assert broker.rounds.waiting == {ORIGIN, W1}


def search(office: Office) -> None:
    """Let the whole journal be searched."""
    for _ in range(12):
        office.step()


def prepared(*, kept: int) -> tuple[Office, wire.Attempt]:
    """Return an office whose log has dropped all but the last `kept` of ten generations."""
    office = Office()
    root = office.begin()
    generations(office, root, *range(10))
    log = office.journal.read(Table.LOG)
    calls = [key for key, raw in log if isinstance(wire.decode_logged(raw), wire.Calls)]
    for key in calls[: 10 - kept]:
        office.journal._tables[Table.LOG].pop(key)
    defines = office.exchange.callables
    assert isinstance(defines, CallableCache)
    defines._dropped = True
    return office, root


def end_round(office: Office, *announced: wire.Define) -> None:
    number = office.exchange.broker.rounds.number
    office.say(ORIGIN, *announced, wire.Forgotten(number))
    office.say(W1, wire.Forgotten(number))
    office.step()


def test_unnamed_records_are_erased_at_the_end_of_a_round() -> None:
    # Given ten callables, of which the log still names two
    office, _ = prepared(kept=2)
    search(office)
    assert office.journal.count(Table.DEFINE) == 10

    # When all have forgotten, and one is announced again
    end_round(office, other(3))
    search(office)

    # Then only those exist that are named, or were announced since the round began
    known = {key for key, _ in office.journal.read(Table.DEFINE)}
    fresh = {other(3).fn, other(8).fn, other(9).fn}
    assert known >= fresh
    assert not known & {other(number).fn for number in (0, 1, 2)}
    assert office.exchange.broker.rounds.is_over


def test_callables_named_by_the_history_table_are_kept() -> None:
    office, _ = prepared(kept=10)
    tables = office.journal._tables
    for key, raw in list(tables[Table.LOG].items()):
        del tables[Table.LOG][key]
        tables[Table.HISTORY][bytes((Table.LOG,)) + key] = raw

    end_round(office)
    search(office)

    assert office.journal.count(Table.DEFINE) == 10


def test_an_erased_callable_is_recorded_again_when_it_is_defined_again() -> None:
    office, _ = prepared(kept=0)
    end_round(office)
    search(office)
    assert office.journal.get(Table.DEFINE, other(0).fn) is None

    office.say(ORIGIN, other(0))
    office.step()

    assert office.journal.get(Table.DEFINE, other(0).fn) is not None


def test_no_search_starts_if_no_log_record_was_dropped() -> None:
    office = Office()
    root = office.begin()
    generations(office, root, *range(10))
    end_round(office)
    search(office)

    assert office.journal.count(Table.DEFINE) == 10
    assert office.exchange.broker.rounds.is_over


def test_the_search_waits_for_unfinished_commits() -> None:
    # Given a call of an old callable that was announced before the round, on a disk that is slow
    office, root = prepared(kept=2)
    exchange = office.exchange
    pending: list[Change] = []

    def turn() -> None:
        office.number, changes, _ = exchange.turn(office.now)
        pending.extend(changes)

    part = wire.Part(20, 0, 1, other(0).fn, digests(0), last=True)
    office.say(ORIGIN, wire.Calls(ROOT, root, [part]), wire.Args([b"arg"]))
    turn()
    task = next(iter(exchange.broker.scheduler.leases))
    done = wire.Outcome(20, 0, other(0).fingerprint, digests(0), [b"V"], task=task)
    office.say(W1, wire.Outcomes(ROOT, [done]))
    office.say(ORIGIN, wire.Forgotten(exchange.broker.rounds.number))
    office.say(W1, wire.Forgotten(exchange.broker.rounds.number))
    turn()
    assert exchange.broker.rounds.phase is RoundPhase.SEARCHING
    assert not exchange.broker.scheduler.leases

    # When turns pass, then nothing is erased before the handled calls are on disk
    for _ in range(12):
        turn()
    assert not [each for each in pending if each.table is Table.DEFINE]

    # And then the call is found
    office.journal.commit(pending)
    office.commit()
    search(office)
    known = {key for key, _ in office.journal.read(Table.DEFINE)}
    assert other(0).fn in known
    assert other(1).fn not in known


@pytest.mark.parametrize(
    ("phase", "event"),
    list(itertools.product(RoundPhase, RoundEvent)),
    ids=lambda each: each.name,
)
def test_a_round_changes_state_only_as_the_table_says(phase: RoundPhase, event: RoundEvent) -> None:
    rounds = Office().exchange.broker.rounds
    rounds.phase = phase
    after = _NEXT[phase].get(event)
    if after is None:
        with pytest.raises(AssertionError, match=f"{phase.name} at {event.name}"):
            rounds.enter(event)
        assert rounds.phase is phase
    else:
        rounds.enter(event)
        assert rounds.phase is after


def test_the_table_in_the_docstring_equals_that_of_the_code() -> None:
    lines = [line.split() for line in (callable_eviction.__doc__ or "").splitlines()]
    (head,) = [words[1:] for words in lines if words[:1] == ["phase"]]
    rows = {words[0]: words[1:] for words in lines if words and words[0] in RoundPhase.__members__}
    table = {
        RoundPhase[phase]: {
            RoundEvent[event]: RoundPhase[after]
            for event, after in zip(head, row, strict=True)
            if after != "-"
        }
        for phase, row in rows.items()
    }
    assert table == _NEXT


def test_a_round_that_has_no_process_to_ask_is_over_at_once() -> None:
    rounds = Office().exchange.broker.rounds
    for number in range(5):
        rounds.hear(other(number).fn, 1)

    rounds.tend(stopping=False)

    assert rounds.phase is RoundPhase.OVER


def test_no_round_begins_during_a_search() -> None:
    rounds = Office().exchange.broker.rounds
    rounds.phase = RoundPhase.SEARCHING
    for number in range(5):
        rounds.hear(other(number).fn, 1)

    rounds.tend(stopping=False)
    assert rounds.phase is RoundPhase.SEARCHING

    rounds.end_search()
    rounds.tend(stopping=False)
    assert rounds.number == (1 << 32) + 1
