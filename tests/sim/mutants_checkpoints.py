"""Planted bugs in code that makes checkpoints, relies on them, and erases the records that they cover."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from resilient_scoop import ids
from resilient_scoop.core.broker import checkpoint_keeper
from resilient_scoop.core.broker.checkpoint_keeper import CheckpointKeeper
from resilient_scoop.core.broker.handover import Handover
from resilient_scoop.core.broker.holdback import Awaited
from resilient_scoop.core.events import Offer, Send
from resilient_scoop.core.facts import checkpoints
from resilient_scoop.core.parent.calls import ParentCalls
from resilient_scoop.core.parent.history import ParentHistory
from resilient_scoop.core.parent.outgoing import Outgoing
from resilient_scoop.core.parent.parent import Parent
from resilient_scoop.wire import messages as wire
from tests.sim.mutants import patched_apply
from tests.sim.planting import Mutant, Patch


def _trimmed_before_verified() -> Sequence[Patch]:
    checkpoint = CheckpointKeeper.checkpoint

    def bug(self: CheckpointKeeper, peer: Any, record: wire.Checkpoint, raw: bytes) -> None:
        checkpoint(self, peer, record, raw)
        verified = wire.Verified(
            record.parent, record.attempt, record.name, record.opening, record.gen
        )
        self.verified(peer, verified)

    return [(CheckpointKeeper, "checkpoint", bug)]


def _covered_too_early() -> Sequence[Patch]:
    trim = checkpoints._trim

    def bug(parent: Any, key: Any, base: Any) -> Any:
        newest = parent.blocks[key][-1]
        return trim(parent, key, newest)

    return [(checkpoints, "_trim", bug)]


def _pending_trimmed() -> Sequence[Patch]:
    def bug(parent: Any, key: Any, base: Any) -> Any:
        kept = dict(parent.batches)
        blocks = parent.blocks
        parent.blocks = {k: [replace(e, pending=(), held=()) for e in v] for k, v in blocks.items()}
        try:
            return trim(parent, key, base)
        finally:
            parent.blocks, parent.batches = blocks, kept

    trim = checkpoints._trim
    return [(checkpoints, "_trim", bug)]


def _counter_wrong(calls_off: int, observations_off: int) -> Callable[[], Sequence[Patch]]:
    jump = Parent.jump

    def bug(self: Parent, calls: int, observations: int, pending: Any) -> None:
        jump(self, calls + calls_off, max(0, observations + observations_off), pending)

    return lambda: [(Parent, "jump", bug)]


def _observations_not_restored() -> Sequence[Patch]:
    jump = Parent.jump

    def bug(self: Parent, calls: int, _observations: int, pending: Any) -> None:
        jump(self, calls, self.history.next_observation, pending)

    return [(Parent, "jump", bug)]


def _checkpoint_not_fenced() -> Sequence[Patch]:
    checkpoint, verified = CheckpointKeeper.checkpoint, CheckpointKeeper.verified

    def unfenced(method: Any) -> Any:
        def bug(self: CheckpointKeeper, peer: Any, record: Any, *raw: bytes) -> None:
            current, self.ledger.current = self.ledger.current, lambda *_: True  # type: ignore[method-assign]
            try:
                method(self, peer, record, *raw)
            finally:
                self.ledger.current = current  # type: ignore[method-assign]

        return bug

    return [
        (CheckpointKeeper, "checkpoint", unfenced(checkpoint)),
        (CheckpointKeeper, "verified", unfenced(verified)),
    ]


def _half_covered_erased() -> Sequence[Patch]:
    covers = checkpoint_keeper._Job.covers

    def bug(self: Any, record: wire.Logged) -> bool:
        if isinstance(record, wire.Calls):
            return any(part.call in self.calls for part in record.parts)
        if isinstance(record, wire.Outcomes):
            return any(item.call in self.calls for item in record.items)
        return covers(self, record)

    return [(checkpoint_keeper._Job, "covers", bug)]


def _trims_forgotten() -> Sequence[Patch]:
    return patched_apply(wire.Trimmed)


def _checkpoints_forgotten() -> Sequence[Patch]:
    return patched_apply(wire.Checkpoint)


def _saved_before_commit() -> Sequence[Patch]:
    checkpoint = CheckpointKeeper.checkpoint

    def bug(self: CheckpointKeeper, peer: Any, record: wire.Checkpoint, raw: bytes) -> None:
        checkpoint(self, peer, record, raw)
        last = self.outbox.actions[-1]
        if isinstance(last, Send):
            self.outbox.actions[-1] = Offer(last.to, last.frames)

    return [(CheckpointKeeper, "checkpoint", bug)]


def _calls_overtaken() -> Sequence[Patch]:
    def bug(self: Outgoing, frame: bytes) -> None:
        self._frames.insert(0, frame)

    return [(Outgoing, "put", bug)]


def _nothing_held() -> Sequence[Patch]:
    return [(ParentCalls, "readable", lambda *_: [])]


def _files_not_held() -> Sequence[Patch]:
    readable = ParentCalls.readable

    def bug(self: ParentCalls, since: int) -> list[int]:
        return [call for call in readable(self, since) if call in self.open]

    return [(ParentCalls, "readable", bug)]


def _history_not_read_again() -> Sequence[Patch]:
    return [(ParentHistory, "read_again", lambda _self: None)]


def _no_one_waited_for() -> Sequence[Patch]:
    answered = Handover.answered

    def bug(self: Handover, peer: Any, answer: wire.OpenBlocks) -> None:
        answered(self, peer, wire.OpenBlocks(answer.no, []))

    return [(Handover, "answered", bug)]


def _answers_not_waited_for() -> Sequence[Patch]:
    return [(Handover, "_all_answered", lambda _self: True)]


def _old_checkpoints_count() -> Sequence[Patch]:
    answered = Handover.answered

    def bug(self: Handover, peer: Any, answer: wire.OpenBlocks) -> None:
        answered(self, peer, answer)
        for path in self.awaited.waiting:
            self.awaited.waiting[path] = 0

    return [(Handover, "answered", bug)]


def _parents_of_the_dead_given_up() -> Sequence[Patch]:
    def bug(self: Handover, path: str) -> bool:
        if path == ids.ROOT:
            return self.members.root is None
        return self.scheduler.lease_of(path) is None

    return [(Handover, "_is_done", bug)]


def _workers_not_awaited() -> Sequence[Patch]:
    settle = Handover.settle

    def bug(self: Handover, now: float, **more: Any) -> bool:
        return settle(self, now, **{**more, "recovering": False})

    return [(Handover, "settle", bug)]


def _nothing_held_back() -> Sequence[Patch]:
    return [(Awaited, "held_back_except", lambda _self, _batch: None)]


def _held_back_below_who_waits() -> Sequence[Patch]:
    exempt = Awaited.held_back_except

    def bug(self: Awaited, batch: Any) -> set[int] | None:
        above = set(ids.lineage(batch.parent.path))
        waiting, self.waiting = self.waiting, {}
        found = exempt(self, batch)
        self.waiting = waiting
        return set() if above & self.through else found

    return [(Awaited, "held_back_except", bug)]


_LOOP = (("durable", "block", 9, 3), ("durable", "other", 6, 1), ("map", "saver", [[6, 2], [5, 1]]))
_DRIZZLE = {
    "rates": {"both": 0.5, "worker": 0.5, "broker": 0.5, "cut": 0.5},
    "until": 8.0,
    "written": 0.7,
    "unloadable": 0.2,
    "fallback": 0.3,
    "edits": False,
}
_CALM = {**_DRIZZLE, "rates": {}, "written": 1.0, "unloadable": 0.0, "fallback": 0.0}
_SHORT = (("map", "saver", [[6, 2], [6, 2], [6, 1]]), ("durable", "block", 6, 2))
_BELOW = (("below", 3, 12),)
_LONG = (("map", "saver", [[15, 2], [15, 2], [15, 1]]), ("durable", "block", 15, 2))
_ASKED = {
    **_DRIZZLE,
    "rates": {"broker": 0.5, "worker": 0.5, "slow": 0.5, "cut": 0.5},
    "asks": 1.5,
    "written": 0.3,
}
_COMING_LATE = {
    **_ASKED,
    "rates": {"broker": 1.0, "slow": 1.0, "cut": 1.0},
    "asks": 2.0,
    "until": 6.0,
}

CHECKPOINT_MUTANTS = (
    Mutant(
        "trimmed before verified", _trimmed_before_verified, _LOOP, {**_DRIZZLE, "fallback": 0.0}
    ),
    Mutant("covered too early", _covered_too_early, _LOOP, _DRIZZLE),
    Mutant("pending calls trimmed", _pending_trimmed, _LOOP, _DRIZZLE),
    Mutant("call counter one too high", _counter_wrong(1, 0), _LOOP, _DRIZZLE),
    Mutant("call counter one too low", _counter_wrong(-1, 0), _LOOP, _DRIZZLE),
    Mutant("observation counter not restored", _observations_not_restored, _LOOP, _DRIZZLE),
    Mutant("observation counter one too high", _counter_wrong(0, 1), _LOOP, _DRIZZLE),
    Mutant("checkpoints of old parents", _checkpoint_not_fenced, _LOOP, _DRIZZLE),
    Mutant("what is half covered erased", _half_covered_erased, _LOOP, _DRIZZLE),
    Mutant("trims forgotten at restart", _trims_forgotten, _LOOP, _DRIZZLE),
    Mutant("checkpoints forgotten at restart", _checkpoints_forgotten, _LOOP, _DRIZZLE),
    Mutant("saved before commit", _saved_before_commit, _LOOP, _DRIZZLE),
    Mutant("checkpoints overtake calls", _calls_overtaken, _LOOP, _DRIZZLE),
    Mutant("nothing held", _nothing_held, _LOOP, _CALM),
    Mutant("unread files not held", _files_not_held, _LOOP, _CALM),
    Mutant("history not read again", _history_not_read_again, _LOOP, _DRIZZLE),
    Mutant("no one waited for", _no_one_waited_for, _LONG, _ASKED),
    Mutant("answers not waited for", _answers_not_waited_for, _LONG, _ASKED),
    Mutant("old checkpoints count", _old_checkpoints_count, _LONG, _ASKED),
    Mutant("parents of the dead given up", _parents_of_the_dead_given_up, _LONG, _ASKED),
    Mutant("workers not awaited", _workers_not_awaited, _SHORT, _COMING_LATE),
    Mutant("nothing held back", _nothing_held_back, _LONG, _ASKED),
    Mutant("held back below who waits", _held_back_below_who_waits, _BELOW, _ASKED),
)
