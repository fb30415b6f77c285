"""Planted bugs: each removes one defense from the machines, and the simulator must detect it.

A check that never fails proves nothing; this table shows which guarantee each defense upholds. Some
defenses have a second one behind them, which is removed too (`digests`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from resilient_scoop.core.broker import exchange
from resilient_scoop.core.broker.broker import Broker
from resilient_scoop.core.broker.cancellations import Cancellations
from resilient_scoop.core.broker.exchange import Exchange
from resilient_scoop.core.broker.ledger import Ledger
from resilient_scoop.core.broker.membership import Membership
from resilient_scoop.core.events import Erase, Put, Send, Table
from resilient_scoop.core.facts import fold, recovery
from resilient_scoop.core.facts.batch import Batch
from resilient_scoop.core.facts.intervals import Intervals
from resilient_scoop.core.facts.state import DurableState
from resilient_scoop.core.facts.tally import Totals
from resilient_scoop.core.link import Link
from resilient_scoop.core.parent.call import Call
from resilient_scoop.core.parent.calls import ParentCalls
from resilient_scoop.core.parent.parent import Parent
from resilient_scoop.core.worker.worker import Worker
from resilient_scoop.wire import messages as wire
from tests.sim.planting import Mutant, Patch


def _acknowledged_before_commit() -> Sequence[Patch]:
    receive = Exchange.receive

    def bug(self: Exchange, peer: Any, frames: list[bytes], now: float) -> None:
        receive(self, peer, frames, now)
        if (link := self.links.get(peer)) is not None:
            link.acked = link.received

    return [(Exchange, "receive", bug)]


def _sent_before_commit() -> Sequence[Patch]:
    turn = Exchange.turn

    def bug(self: Exchange, now: float) -> Any:
        number, changes, mails = turn(self, now)
        last = self._turns[-1]
        early = [send for send in last.sends if isinstance(send, Send)]
        last.sends = [send for send in last.sends if not isinstance(send, Send)]
        return number, changes, [*mails, *(self._pack(s.to, s.frames) for s in early)]

    return [(Exchange, "turn", bug)]


def _outcomes_counted_twice() -> Sequence[Patch]:
    wanted = DurableState.wanted

    def bug(self: DurableState, batch: Batch, outcome: wire.Outcome) -> list[tuple[int, int]]:
        stop = outcome.start + len(outcome.values)
        if batch.done.overlap(outcome.start, stop):
            return [(outcome.start, stop)]
        return wanted(self, batch, outcome)

    return [(DurableState, "wanted", bug)]


def _no_fence() -> Sequence[Patch]:
    def bug(self: Ledger, peer: Any, path: str, attempt: wire.Attempt) -> bool:
        return True

    return [(Ledger, "current", bug)]


def _observation_lost() -> Sequence[Patch]:
    def bug(self: Parent, kind: str, answer: bytes) -> None:
        self.history.next_observation += 1

    return [(Parent, "observe", bug)]


def _observation_late() -> Sequence[Patch]:
    frames = Parent.frames
    late: dict[int, list[bytes]] = {}

    def bug(self: Parent) -> list[bytes]:
        observations, self.outgoing._observations = self.outgoing._observations, []
        found = [*frames(self), *late.pop(id(self), [])]
        if observations:
            late[id(self)] = [wire.encode(wire.Observed(self.path, self.attempt, observations))]
        return found

    return [(Parent, "frames", bug)]


def _digests_not_compared() -> Sequence[Patch]:
    def wanted(self: DurableState, batch: Batch, outcome: wire.Outcome) -> list[tuple[int, int]]:
        return batch.undone.overlap(outcome.start, outcome.start + len(outcome.values))

    def settle(
        self: ParentCalls, call: Call, outcome: wire.Outcome, *, recovering: bool
    ) -> list[Any]:
        stop = outcome.start + len(outcome.values)
        for low, high in call.left.overlap(outcome.start, min(stop, call.count)):
            self._put(call, outcome, low, high, recovering)
        return []

    return [(DurableState, "wanted", wanted), (ParentCalls, "settle", settle)]


def _hello_without_owed() -> Sequence[Patch]:
    hello = Worker.hello

    def bug(self: Worker) -> list[bytes]:
        self.link = Link(self.run, self.link.epoch)
        return hello(self)

    return [(Worker, "hello", bug)]


def _adopted_unchecked() -> Sequence[Patch]:
    def bug(self: Membership, peer: Any, held: wire.Held, now: float) -> bool:
        batch = self.scheduler.find(held.parent, held.call)
        if batch is None:
            return False
        for start, stop in held.spans:
            self.scheduler.withdraw(batch, start, stop)
        self.scheduler.lease(held.attempt, batch, Intervals(held.spans), peer, 0.05, now)
        return True

    return [(Membership, "_adopt", bug)]


def _crashes_forgotten() -> Sequence[Patch]:
    return patched_apply(wire.Crashed)


def _intents_forgotten() -> Sequence[Patch]:
    return patched_apply(wire.Intent)


def _observations_forgotten() -> Sequence[Patch]:
    return patched_apply(wire.Observed)


def patched_apply(kind: type) -> Sequence[Patch]:
    """Make a new broker ignore the records of one kind."""

    def bug(state: DurableState, record: wire.Logged, seq: int) -> fold.Change:
        return fold.Change() if isinstance(record, kind) else fold.apply(state, record, seq)

    return [(recovery, "apply", bug)]


def _doubts_ignored() -> Sequence[Patch]:
    return [(Membership, "settle_doubts", lambda _: None)]


def _page_skipped() -> Sequence[Patch]:
    page = Parent.page

    def bug(self: Parent, head: wire.History, records: list[Any]) -> None:
        page(self, head, records[:-1] if len(records) > 1 else records)

    return [(Parent, "page", bug)]


def _leases_of_the_dead_kept() -> Sequence[Patch]:
    return [(Ledger, "again", lambda *_, **__: 0)]


def _cancelled_after_grant() -> Sequence[Patch]:
    def bug(self: Cancellations, parent: Any, call: int, index: int) -> None:
        answer = wire.CancelAnswer(parent.path, call, index, cancelled=True)
        self.ledger.tell(parent, wire.encode(answer))

    return [(Cancellations, "_answer", bug)]


def _no_catching_up() -> Sequence[Patch]:
    def bug(self: Parent) -> None:
        self.history.page_asked = False

    return [(Parent, "reconnect", bug)]


def _no_resending() -> Sequence[Patch]:
    take = Link.take

    def bug(self: Link, header: wire.Header, now: float) -> Any:
        fresh, _ = take(self, header, now)
        return fresh, []

    return [(Link, "take", bug), (Link, "again", lambda _: [])]


def _gaps_taken() -> Sequence[Patch]:
    def bug(self: Link, header: wire.Header, now: float) -> Any:
        self._settle(header.ack)
        fresh = not header.flags and header.seq > self.received
        self.received = max(self.received, header.seq) if fresh else self.received
        return fresh, []

    return [(Link, "take", bug)]


def _silent_for_ever() -> Sequence[Patch]:
    return [(Membership, "revive", lambda *_: None)]


def _descendants_kept() -> Sequence[Patch]:
    step = Broker.step

    def bug(self: Broker, event: Any, now: float, **more: Any) -> Any:
        return [each for each in step(self, event, now, **more) if not isinstance(each, Erase)]

    return [(Broker, "step", bug)]


def _cancel_asked_again() -> Sequence[Patch]:
    return [(fold, "is_cancelled", lambda _: False)]


def _calls_not_journaled() -> Sequence[Patch]:
    step = Broker.step

    def bug(self: Broker, event: Any, now: float, **more: Any) -> Any:
        actions = step(self, event, now, **more)
        return [e for e in actions if not isinstance(e, Put) or e.forced or e.table != Table.LOG]

    return [(Broker, "step", bug)]


def _erased_uncounted() -> Sequence[Patch]:
    return [(Totals, "erase", lambda *_, **__: None)]


def _numbers_used_again() -> Sequence[Patch]:
    recover = recovery.recover

    def bug(*args: Any) -> DurableState:
        state = recover(*args)
        state.seq = 0
        return state

    from tests.sim import shells

    return [(shells, "recover", bug)]


def _arguments_dropped() -> Sequence[Patch]:
    spend = fold._spend

    def bug(state: DurableState, parent: Any, piece: Any, spent: list[bytes]) -> None:
        if piece.record in parent.args_left:
            parent.args_left[piece.record] -= 1  # a part of the record is counted twice
        spend(state, parent, piece, spent)

    return [(fold, "_spend", bug)]


def _blame_for_all() -> Sequence[Patch]:
    blame = Membership._blame

    def bug(self: Membership, batch: Any, fn: bytes, lost: wire.ProcessLost) -> None:
        blame(self, batch, fn, lost)
        if lost.index in batch.facts.undone:
            other = lost.incarnation[:-1] + b"?"  # as if another process had died
            blame(self, batch, fn, msgspec.structs.replace(lost, incarnation=other))

    return [(Membership, "_blame", bug)]


def _outputs_twice() -> Sequence[Patch]:
    def bug(self: Ledger, peer: Any, output: wire.Output, raw: bytes) -> None:
        known = self.state.output_bytes
        raw = wire.encode(wire.Output(output.attempt, known, output.data))
        self.state.output_bytes += len(output.data)
        self.outbox.actions.append(Put(Table.OUTPUT, known.to_bytes(8, "big"), raw))

    return [(Ledger, "output", bug)]


def _page_cut_short() -> Sequence[Patch]:
    page = exchange._page

    def bug(send: Any, journal: Any, *more: Any) -> list[bytes]:
        frames = page(send, journal, *more)
        head = wire.decode_down(frames[0])
        assert isinstance(head, wire.History)
        whole = msgspec.structs.replace(head, last=True)
        return [wire.encode(whole), *frames[1:]]

    return [(exchange, "_page", bug)]


_RISKY = (("risky", 3), ("risky", 2))
_CANCEL = (("cancel", 5), ("cancel", 4), ("cancel", 3))
_STEADY = (("steady", 9), ("steady", 9))
_FORGETFUL = {
    "rates": {"both": 1.0, "cut": 4.0, "pause": 1.0},
    "until": 10.0,
    "commit_s": 0.1,
    "latency_s": 0.0002,
    "boot_s": 0.05,
    "nodes": 1,
    "workers": 3,
}
"""The broker and the origin die together and forget what was not committed; workers do not."""

MUTANTS = (
    Mutant("erased results not counted", _erased_uncounted),
    Mutant("acknowledged before commit", _acknowledged_before_commit),
    Mutant("sent before commit", _sent_before_commit),
    Mutant("outcomes counted twice", _outcomes_counted_twice),
    Mutant("old parents not fenced", _no_fence),
    Mutant("observations lost", _observation_lost, _STEADY),
    Mutant("observations sent late", _observation_late, _STEADY),
    Mutant("digests not compared", _digests_not_compared, _STEADY, _FORGETFUL),
    Mutant("Hello without what is owed", _hello_without_owed),
    Mutant("adopted unchecked", _adopted_unchecked),
    Mutant("deaths forgotten at restart", _crashes_forgotten, (("map", "poison", [1, 2]),)),
    Mutant("intents forgotten at restart", _intents_forgotten, _RISKY),
    Mutant("observations forgotten at restart", _observations_forgotten, _STEADY),
    Mutant("doubts ignored", _doubts_ignored, _RISKY),
    Mutant("a record of a page skipped", _page_skipped),
    Mutant("a page taken for the last", _page_cut_short),
    Mutant("leases of the dead kept", _leases_of_the_dead_kept),
    Mutant("cancelled after the grant", _cancelled_after_grant, _CANCEL),
    Mutant("cancellation forgotten", _cancel_asked_again, _CANCEL),
    Mutant("no catching up", _no_catching_up),
    Mutant("nothing sent again", _no_resending),
    Mutant("gaps not noticed", _gaps_taken),
    Mutant("the silent never heard again", _silent_for_ever),
    Mutant("records of descendants kept", _descendants_kept),
    Mutant("calls not journaled", _calls_not_journaled),
    Mutant("numbers of records used again", _numbers_used_again),
    Mutant("deaths counted twice", _blame_for_all, (("map", "poison", [1]),)),
    Mutant("output recorded twice", _outputs_twice),
    Mutant("arguments dropped too early", _arguments_dropped),
)
