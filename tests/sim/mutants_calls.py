"""Planted bugs in messages about calls: cancellations, constants, time limits, priorities, progress."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from resilient_scoop.core.broker import exchange, ledger
from resilient_scoop.core.broker.abandonments import Abandonments
from resilient_scoop.core.broker.broker import Broker
from resilient_scoop.core.broker.cancellations import Cancellations
from resilient_scoop.core.broker.ledger import Ledger
from resilient_scoop.core.broker.membership import Membership
from resilient_scoop.core.broker.scheduler import Scheduler
from resilient_scoop.core.events import Put, Table
from resilient_scoop.core.facts import fold, recovery
from resilient_scoop.core.facts.progress import ProgressTable
from resilient_scoop.core.facts.state import DurableState
from resilient_scoop.core.parent.calls import ParentCalls
from resilient_scoop.core.parent.cancel_questions import CancelQuestions
from resilient_scoop.core.parent.parent import Parent
from resilient_scoop.core.worker.worker import Worker
from resilient_scoop.wire import messages as wire
from tests.sim.mutants import patched_apply
from tests.sim.planting import Mutant, Patch


def _cancelled_under_its_holder() -> Sequence[Patch]:
    def bug(self: Cancellations, question: Any, lease: Any) -> None:
        self._cancel(question.batch, question.index)

    return [(Cancellations, "_ask_holder", bug)]


def _given_back_and_begun() -> Sequence[Patch]:
    give_back = Worker.give_back

    def bug(self: Worker) -> None:
        stops = [(work, work.stop) for work in self.works.values()]
        give_back(self)
        for work, stop in stops:
            work.stop = stop

    return [(Worker, "give_back", bug)]


def _cancelled_before_the_workers_come() -> Sequence[Patch]:
    ask = Cancellations.ask

    def bug(self: Cancellations, peer: Any, wanted: wire.Cancel) -> None:
        ask(self, peer, wanted)
        self.settle()

    return [(Cancellations, "ask", bug)]


def _cancel_not_asked_again() -> Sequence[Patch]:
    reconnect = Parent.reconnect

    def bug(self: Parent) -> None:
        asked = self.cancels
        self.cancels = CancelQuestions(self.path, self.attempt)
        reconnect(self)
        self.cancels = asked

    return [(Parent, "reconnect", bug), (Worker, "hello", _without_cancels(Worker.hello))]


def _without_cancels(hello: Callable[[Worker], list[bytes]]) -> Callable[[Worker], list[bytes]]:
    """Remove cancellations also from the link, which sends unacknowledged messages again."""

    def bug(self: Worker) -> list[bytes]:
        head, *frames = hello(self)
        kept = [f for f in frames if not isinstance(wire.decode_up(f), wire.Cancel)]
        self.link.unacked[self.link.sent] = kept
        return [head, *kept]

    return bug


def _never_in_time() -> Sequence[Patch]:
    def bug(self: Cancellations, question: Any, lease: Any) -> None:
        question.asked, question.begun = lease.attempt, True

    return [(Cancellations, "_ask_holder", bug)]


def _consts_not_journaled() -> Sequence[Patch]:
    step = Broker.step

    def bug(self: Broker, event: Any, now: float, **more: Any) -> Any:
        actions = step(self, event, now, **more)
        return [e for e in actions if not isinstance(e, Put) or e.table != Table.CONST]

    return [(Broker, "step", bug)]


def _consts_kept_from(method: str) -> Callable[[], Sequence[Patch]]:
    def patches() -> Sequence[Patch]:
        right = getattr(Membership, method)

        def bug(self: Membership, *args: Any) -> Any:
            consts, self.ledger.consts = self.ledger.consts, {}
            try:
                return right(self, *args)
            finally:
                self.ledger.consts = consts

        return [(Membership, method, bug)]

    return patches


def _late_is_no_end() -> Sequence[Patch]:
    verdict = Membership._verdict

    def bug(self: Membership, batch: Any, fn: bytes, lost: wire.ProcessLost) -> bytes | None:
        return verdict(self, batch, fn, msgspec.structs.replace(lost, reason="crash"))

    return [(Membership, "_verdict", bug)]


def _late_once_is_the_end() -> Sequence[Patch]:
    options = Scheduler.options

    def bug(self: Scheduler, fn: bytes) -> wire.Options:
        return msgspec.structs.replace(options(self, fn), retries=0)

    return [(Scheduler, "options", bug)]


def _late_is_a_crash() -> Sequence[Patch]:
    blame = Membership._blame

    def bug(self: Membership, batch: Any, fn: bytes, lost: wire.ProcessLost) -> None:
        blame(self, batch, fn, msgspec.structs.replace(lost, reason="crash"))

    return [(Membership, "_blame", bug)]


def _first_come_first_served() -> Sequence[Patch]:
    def bug(self: Worker, work: Any) -> None:
        self.queue.append(work)

    return [(Worker, "_enqueue", bug)]


def _slices_not_left() -> Sequence[Patch]:
    return [(Worker, "outranked", lambda *_: False)]


def _no_one_overtaken() -> Sequence[Patch]:
    return [(Scheduler, "_overtaken", lambda _: None)]


def _failures_taken_for_values() -> Sequence[Patch]:
    settle_one = Worker.settle_one

    def bug(self: Worker, work: Any, index: int, value: bytes, *, failed: bool) -> None:
        settle_one(self, work, index, value, failed=False)

    return [(Worker, "settle_one", bug)]


_CANCELS = tuple(("cancels", "slow", 9, [[0.0, 8], [0.3, 5], [0.1, 3]]) for _ in range(3))
_CANCELS_IN_SLICES = (("cancels", "leaf", 120, [[0.01, at] for at in range(20, 110, 5)]),)
_CONSTS = tuple(("const", f"c{number}", number, 2, 2) for number in range(4))
_LATE = (("late", "hangs", 2), ("late", "hangs", 1))
_URGENT = (("urgent", "slow", 12, [0.1, 0.3, 0.5]), ("urgent", "leaf", 60, [0.2, 0.2, 0.1]))


def _progress_forgotten() -> Sequence[Patch]:
    recover = recovery.recover

    def bug(
        run: bytes, defines: Any, log: Any, output_bytes: int, _: Any, tally: Any
    ) -> DurableState:
        return recover(run, defines, log, output_bytes, (), tally)

    from tests.sim import shells

    return [(shells, "recover", bug)]


def _progress_of_others() -> Sequence[Patch]:
    def put(state: DurableState, message: wire.Progress) -> bytes | None:
        return state.progress.put(message, b"", state.run)

    def read(task: wire.Task, where: Any, journal: Any) -> wire.Task:
        message = wire.decode_up(journal.get(Table.PROGRESS, where.key))
        assert isinstance(message, wire.Progress)
        return msgspec.structs.replace(task, resume=message.payload)

    return [
        (ledger, "apply_progress", put),
        (recovery, "apply_progress", put),
        (ProgressTable, "sift", lambda *_: None),
        (exchange, "_with_resume", read),
    ]


def _progress_kept_for_good() -> Sequence[Patch]:
    return [(Ledger, "erase_stale", lambda _: None)]


def _first_word_stands() -> Sequence[Patch]:
    put = ProgressTable.put

    def bug(self: ProgressTable, message: wire.Progress, *more: Any) -> bytes | None:
        old = (self.within(message.parent, message.call) or {}).get(message.index)
        return put(self, message, *more) if old is None else None

    return [(ProgressTable, "put", bug)]


def _progress_not_handed_out() -> Sequence[Patch]:
    return [(exchange, "_with_resume", lambda task, *_: task)]


def _given_up_for_nothing() -> Sequence[Patch]:
    return [(Abandonments, "settle", lambda _: None)]


def _given_up_not_reported_again() -> Sequence[Patch]:
    def bug(self: Worker) -> list[bytes]:
        head, *frames = hello(self)
        kept = [f for f in frames if not isinstance(wire.decode_up(f), wire.Abandon)]
        self.link.unacked[self.link.sent] = kept
        return [head, *kept]

    hello = Worker.hello
    return [(ParentCalls, "abandoned", lambda _: []), (Worker, "hello", bug)]


def _given_up_taken_for_done() -> Sequence[Patch]:
    finish = fold._finish

    def bug(state: DurableState, parent: Any, batch: Any, spent: list[bytes]) -> None:
        done = batch.done.stops[-1] if batch.done else 0
        finish(state, parent, batch, spent)
        if parent.partial.pop(batch.call, None) is not None:
            parent.sizes[batch.call] = done

    return [(fold, "_finish", bug)]


def _given_up_forgotten() -> Sequence[Patch]:
    return patched_apply(wire.Abandoned)


def _new_end_not_journaled() -> Sequence[Patch]:
    """Apply shorter or repeated calls in the live broker only, without a record."""
    log = Ledger.log

    def bug(self: Ledger, parent: Any, raw: bytes, *, forced: bool = True) -> int:
        record = wire.decode_logged(raw)
        if isinstance(record, wire.Calls) and record.attempt.no > 1:
            return self.state.seq
        return log(self, parent, raw, forced=forced)

    return [(Ledger, "log", bug)]


_GLANCES = (
    ("glance", "slow", 20, 1, 3), ("map", "glance", [["slow", 9, 2, 3], ["leaf", 30, 1, 4]]),
    ("glance", "slow", 8, 0, 4),
)  # fmt: skip
_LONG = (("map", "long", [3, 4, 5]), ("map", "long", [6]))

CALL_MUTANTS = (
    Mutant("cancelled under its holder", _cancelled_under_its_holder, _CANCELS),
    Mutant("given back and begun", _given_back_and_begun, _CANCELS_IN_SLICES),
    Mutant("cancelled before workers come", _cancelled_before_the_workers_come, _CANCELS),
    Mutant("cancellation not asked again", _cancel_not_asked_again, _CANCELS),
    Mutant("never cancelled in time", _never_in_time, _CANCELS),
    Mutant("constants not journaled", _consts_not_journaled, _CONSTS),
    Mutant("constants kept from newcomers", _consts_kept_from("welcome"), _CONSTS),
    Mutant("constants kept from the revived", _consts_kept_from("revive"), _CONSTS),
    Mutant("late items tried forever", _late_is_no_end, _LATE),
    Mutant("late items not tried again", _late_once_is_the_end, _LATE),
    Mutant("late items taken for crashes", _late_is_a_crash, _LATE),
    Mutant("workers serve who comes first", _first_come_first_served, _URGENT),
    Mutant("slices not left for urgent ones", _slices_not_left, _URGENT),
    Mutant("no one overtaken", _no_one_overtaken, _URGENT),
    Mutant("failures taken for values", _failures_taken_for_values, (("map", "flaky", [3, 1]),)),
    Mutant("progress forgotten at restart", _progress_forgotten, _LONG),
    Mutant("progress of another call taken", _progress_of_others, _LONG, {"edits": True}),
    Mutant("progress never erased", _progress_kept_for_good, _LONG),
    Mutant("the first word stands", _first_word_stands, _LONG),
    Mutant("progress not handed out", _progress_not_handed_out, _LONG),
    Mutant("given up for nothing", _given_up_for_nothing, _GLANCES),
    Mutant("given up, not reported again", _given_up_not_reported_again, _GLANCES),
    Mutant("given up, taken for done", _given_up_taken_for_done, _GLANCES),
    Mutant("given up, forgotten at restart", _given_up_forgotten, _GLANCES),
    Mutant("calls of later attempts not journaled", _new_end_not_journaled),
)
