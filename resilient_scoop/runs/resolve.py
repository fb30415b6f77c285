"""`rscoop resolve`: items in doubt, and the user's decisions about them.

An item of an `idempotent=False` call is in doubt if its start was journaled and its outcome was
not: it may or may not have had its effect (AT-MOST-ONCE forbids another try). A resume ends it as
WorkerLostError. Only a user who has checked the effect can decide. The decision is journaled as the
item's outcome, or it removes the record of the start, so that the item is started again.

The journal is opened for writing under its own lock, with the run locked: the tool is the only
writer. An item that has ended as WorkerLostError can be resolved, too, unless its run has finished;
as with `--retry-failed`, its parent then gets another answer than before.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Final

from resilient_scoop import ids
from resilient_scoop.core.events import FAILED_KEY, Change, Erase, Put, Table
from resilient_scoop.core.facts.intervals import Intervals
from resilient_scoop.core.facts.outcomes import parts_of
from resilient_scoop.core.facts.recovery import name_of
from resilient_scoop.core.facts.visitor import LogVisitor
from resilient_scoop.errors import UsageError
from resilient_scoop.journal.journal import Journal
from resilient_scoop.runs.status import read_ended
from resilient_scoop.runs.stored_state import read_state
from resilient_scoop.wire import messages as wire
from resilient_scoop.wire.broker_errors import broker_error, read_broker_error
from resilient_scoop.wire.payload_tags import BROKER_ERROR

if TYPE_CHECKING:
    from collections.abc import Iterator

    from resilient_scoop.core.facts.parent import ParentFacts
    from resilient_scoop.core.facts.state import DurableState
    from resilient_scoop.core.ports import Readable
    from resilient_scoop.runs.folder import RunDir, RunInfo


_PAGE_BYTES: Final = 1 << 20


class DoubtDecision(StrEnum):
    """The user's decision about an item in doubt."""

    AGAIN = "again"  # it had no effect, or repeating it is harmless
    DONE = "done"  # it had its effect, and this is its value
    FAILED = "failed"  # its parent gets WorkerLostError


def given_up(view: Readable, state: DurableState) -> list[tuple[str, str]]:
    """Return the items that ended as lost and can still be resolved: (path, function's name)."""
    ended = read_ended(view)
    if ended is not None and _is_finished(ended):
        return []
    lost = _Lost(state)
    for parent in state.parents.values():
        after = None
        while page := view.read(Table.LOG, parent.prefix, after, _PAGE_BYTES):
            after = page[-1][0]
            for _, raw in page:
                lost.visit(wire.decode_logged(raw))
    return [(ids.item_path(*place), lost.found[place]) for place in sorted(lost.found)]


class _Lost(LogVisitor):
    """Items that ended as lost, unless they were called again since: the functions' names."""

    def __init__(self, state: DurableState) -> None:
        self.state = state
        self.found: dict[tuple[str, int, int], str] = {}

    def cut_off(self, parent: str, call: int, stop: int) -> None:
        for key in [key for key in self.found if key[:2] == (parent, call) and key[2] >= stop]:
            del self.found[key]

    def ended(self, parent: str, outcome: wire.Outcome) -> None:
        batch, failed = self.state.batch(parent, outcome.call), set(outcome.failed)
        for place, payload in enumerate(outcome.values) if failed or self.found else ():
            key = (parent, outcome.call, outcome.start + place)
            self.found.pop(key, None)  # a later outcome counts
            is_open = batch is not None and key[2] in batch.undone
            if place in failed and _is_lost(payload) and not is_open:
                self.found[key] = str(read_broker_error(payload)[1][-1])


def resolve(run: RunDir, info: RunInfo, path: str, verdict: DoubtDecision, payload: bytes) -> str:
    """Record a decision about an item; return its meaning. `payload` is its pickled value.

    Raises:
        UsageError: it is not in doubt, or its run has finished.
        RunBusyError: the run is live.
    """
    place = ids.parse_item(path)
    if place is None:
        raise UsageError(
            f"{path} is not an item; an item is 0.3[17]: `rscoop resolve {run.id}` lists them"
        )
    with run.hold():
        journal = Journal.open(run.journal, run=bytes.fromhex(info.uuid))
        clean = False
        try:
            item = Resolution(journal, *place)
            changes, text = item.changes(verdict, payload)
            ended = journal.get(Table.META, b"ended")
            if changes and item.continues and ended is not None:
                changes += [Erase(Table.META, b"ended"), Put(Table.META, FAILED_KEY, ended)]
            journal.commit(changes)
            clean = True
        except UsageError:
            clean = True
            raise
        finally:
            journal.close(clean=clean)
    return text


class Resolution:
    """The records to write for one item."""

    def __init__(self, journal: Journal, parent: str, call: int, index: int) -> None:
        self.journal = journal
        self.call = call
        self.index = index
        self.path = ids.item_path(parent, call, index)
        self.state = read_state(journal, journal.run)
        ended = read_ended(journal)
        if ended is not None and _is_finished(ended):
            raise UsageError(f"item {self.path} belongs to a finished run; nothing is in doubt")
        self.continues = ended is not None  # it had failed: this is no longer its outcome
        known = self.state.parents.get(parent)
        if known is None or call >= known.next_call():
            raise UsageError(f"item {self.path} is not known; see `rscoop why`")
        self.parent: ParentFacts = known

    def changes(self, verdict: DoubtDecision, payload: bytes) -> tuple[list[Change], str]:
        """Return the records to write, and the meaning for display."""
        batch = self.parent.batches.get(self.call)
        if batch is not None and self.index in batch.undone:
            if self.index not in self.parent.intents.get(self.call, ()):
                raise UsageError(
                    f"item {self.path} is not in doubt: it was not started; a resume runs it"
                )
            piece = batch.piece_at(self.index)
            assert piece is not None, "S1"
            return self._open(
                verdict, payload, piece.fn, batch.digests_of(self.index, self.index + 1)
            )
        return self._ended(verdict, payload)

    def _open(
        self, verdict: DoubtDecision, payload: bytes, fn: bytes, digest: bytes
    ) -> tuple[list[Change], str]:
        if verdict is DoubtDecision.AGAIN:
            return list(self._without_intent()), f"{self.path} will run again"
        failed = [0] if verdict is DoubtDecision.FAILED else []
        if failed:
            payload = broker_error("lost", self.path, name_of(self.state, fn))
        outcome = wire.Outcome(
            self.call, self.index, self.state.fingerprint(fn), digest, [payload], failed, once=True
        )
        record = wire.encode(wire.Outcomes(self.parent.path, [outcome]))
        key = ids.record_key(self.parent.prefix, self.state.seq + 1)
        return [Put(Table.LOG, key, record)], self._meaning(verdict)

    def _meaning(self, verdict: DoubtDecision) -> str:
        outcome = (
            "WorkerLostError" if verdict is DoubtDecision.FAILED else "the value that you gave"
        )
        return f"{self.path} has ended; its parent will get {outcome}"

    def _ended(self, verdict: DoubtDecision, payload: bytes) -> tuple[list[Change], str]:
        """Change the outcome of an item that was given up."""
        for key, record in self._log():
            if not isinstance(record, wire.Outcomes):
                continue
            for at, item in enumerate(record.items):
                place = self.index - item.start
                if item.call == self.call and place in item.failed and _is_lost(item.values[place]):
                    if verdict is DoubtDecision.FAILED:
                        return [], f"{self.path} has already ended as WorkerLostError"
                    parts = _replaced(
                        item, place, None if verdict is DoubtDecision.AGAIN else payload
                    )
                    items = [*record.items[:at], *parts, *record.items[at + 1 :]]
                    changed = self._put(key, items)
                    if verdict is DoubtDecision.AGAIN:
                        return [
                            changed,
                            *self._without_intent(),
                        ], f"{self.path} will run again"
                    return [changed], self._meaning(verdict)
        raise UsageError(f"item {self.path} is not in doubt; `rscoop why` explains its state")

    def _put(self, key: bytes, items: list[wire.Outcome]) -> Change:
        if not items:
            return Erase(Table.LOG, key)
        return Put(Table.LOG, key, wire.encode(wire.Outcomes(self.parent.path, items)))

    def _without_intent(self) -> Iterator[Change]:
        """Remove the records of its start."""
        seq = self.state.seq
        for key, record in self._log():
            if not isinstance(record, wire.Intent) or record.void or record.call != self.call:
                continue
            left = Intervals([(record.start, record.start + record.count)])
            if self.index not in left:
                continue
            left.discard(self.index, self.index + 1)
            yield Erase(Table.LOG, key)
            for start, stop in left:
                seq += 1
                at = start - record.start
                digests = ids.digests_of(record.digests, at, at + stop - start)
                rest = wire.Intent(record.parent, record.call, start, stop - start, digests)
                yield Put(Table.LOG, ids.record_key(self.parent.prefix, seq), wire.encode(rest))

    def _log(self) -> Iterator[tuple[bytes, wire.Logged]]:
        for key, raw in self.journal.read(Table.LOG, self.parent.prefix):
            yield key, wire.decode_logged(raw)


def _is_finished(ended: wire.RunEnded) -> bool:
    return not ended.failed and ended.code == 0


def _is_lost(payload: bytes) -> bool:
    return payload[:1] == BROKER_ERROR and read_broker_error(payload)[0] == "lost"


def _replaced(item: wire.Outcome, place: int, payload: bytes | None) -> list[wire.Outcome]:
    """Return an outcome without one of its items, or with another value for it."""
    index, stop = item.start + place, item.start + len(item.values)
    parts = parts_of(item, [s for s in ((item.start, index), (index + 1, stop)) if s[0] < s[1]])
    if payload is None:
        return parts
    digest = ids.digests_of(item.digests, place, place + 1)
    return [*parts, wire.Outcome(item.call, index, item.fingerprint, digest, [payload], once=True)]
