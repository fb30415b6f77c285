"""The fold over a journal's LOG that counts: calls, results, failures, work by function, deaths."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from resilient_scoop.core.facts.intervals import Intervals
from resilient_scoop.core.facts.tally import OTHERS, held_under
from resilient_scoop.core.facts.visitor import LogVisitor
from resilient_scoop.ids import parse_item
from resilient_scoop.wire.messages import decode_logged

if TYPE_CHECKING:
    from resilient_scoop.wire.messages import (
        Abandoned,
        Checkpoint,
        Crashed,
        Outcome,
        Part,
        Trimmed,
    )
    from resilient_scoop.wire.tally import FunctionWork, Tally


@dataclass(slots=True)
class ReplayStatus:
    """What a restarted parent replays: everything since its last checkpoint, or since its start."""

    path: str
    results: int = 0
    size_bytes: int = 0


@dataclass(slots=True)
class _Batch:
    fn: bytes = b""
    title: str = ""
    known: int = 0
    whole: bool = False
    done: Intervals = field(default_factory=Intervals)
    given_up: Intervals = field(default_factory=Intervals)

    @property
    def wanted(self) -> int:
        """Number of its items, without those that were given up."""
        return self.known - self.given_up.count() if self.given_up else self.known


@dataclass(slots=True)
class Count(LogVisitor):
    """A fold of the LOG in the order of its keys, which preserves the order within each parent."""

    titles: dict[bytes, str] = field(default_factory=dict)  # of functions, by fingerprint
    functions: dict[str, FunctionWork] = field(default_factory=dict)
    batches: dict[tuple[str, int], _Batch] = field(default_factory=dict)
    failed: dict[tuple[str, int], set[int]] = field(default_factory=dict)
    crashed: set[tuple[str, int, int]] = field(default_factory=set)
    crashes: int = 0
    computed_s: float = 0.0
    replays: dict[str, ReplayStatus] = field(default_factory=dict)
    items_trimmed: dict[str, int] = field(default_factory=dict)  # whose records are gone

    def take(self, value: bytes) -> None:
        """Count a record."""
        record = decode_logged(value)
        replay = self.replays.setdefault(record.parent, ReplayStatus(record.parent))
        replay.size_bytes += len(value)
        self.visit(record)

    def saved(self, record: Checkpoint) -> None:
        """Note that a parent replays from here."""
        self.replays[record.parent] = ReplayStatus(record.parent)

    def trimmed(self, record: Trimmed) -> None:
        """Keep the number of items, whose records may be erased."""
        parent, calls = record.parent, Intervals(record.calls)
        self.items_trimmed[parent] = record.items
        for held in (self.batches, self.failed):
            for at in [at for at in held if at[0] == parent and at[1] in calls]:
                del held[at]

    def asked(self, parent: str, part: Part, _offset: int) -> None:
        """Count the items of a batch."""
        batch = self._batch(parent, part.call)
        stop = part.start + part.count
        batch.known = max(batch.known, stop)
        batch.whole |= part.last
        batch.fn = part.fn
        batch.given_up.discard(part.start, stop)

    def cut_off(self, parent: str, call: int, stop: int) -> None:
        """Discount items beyond the end: an earlier attempt of the parent may have had more."""
        batch = self._batch(parent, call)
        if batch.known > stop:
            self._lose(parent, call, batch, stop, batch.known)
            batch.known = stop
            batch.given_up.discard(stop, 1 << 62)

    def renewed(self, parent: str, call: int, start: int, stop: int) -> None:
        """Discount results that are replaced by others."""
        self._lose(parent, call, self._batch(parent, call), start, stop)

    def ended(self, parent: str, outcome: Outcome) -> None:
        """Count results."""
        count, start = len(outcome.values), outcome.start
        self.replays[parent].results += count
        batch = self._batch(parent, outcome.call)
        batch.done.add(start, start + count)
        title = batch.title = self.titles.get(outcome.fingerprint, OTHERS)
        spent_s = max(0.0, outcome.spent_s)
        held_under(self.functions, title).add(count, len(outcome.failed), spent_s)
        self.computed_s += spent_s  # parents are not measured
        if outcome.failed:
            failed = self.failed.setdefault((parent, outcome.call), set())
            failed.update(start + index for index in outcome.failed)

    def given_up(self, record: Abandoned) -> None:
        """Note that a batch ends with its present items."""
        batch = self._batch(record.parent, record.call)
        batch.whole = True
        for low, high in record.spans:
            batch.given_up.add(low, high)

    def died(self, record: Crashed) -> None:
        """Count deaths."""
        self.crashes += record.reason != "timeout"
        self.crashed.add((record.parent, record.call, record.index))

    def _batch(self, parent: str, call: int) -> _Batch:
        found = self.batches.get((parent, call))
        if found is None:
            found = self.batches[parent, call] = _Batch()
        return found

    def _lose(self, parent: str, call: int, batch: _Batch, start: int, stop: int) -> None:
        """Discount results that are replaced by others."""
        lost = sum(high - low for low, high in batch.done.overlap(start, stop))
        if not lost:
            return
        batch.done.discard(start, stop)
        failed = self.failed.get((parent, call), set())
        gone = {index for index in failed if start <= index < stop}
        failed -= gone
        held_under(self.functions, batch.title).add(-lost, -len(gone), 0.0)

    def end(self, tally: Tally | None) -> None:
        """Add what the log no longer has; leave out records that both the log and the tally count."""
        if tally is None:
            return
        for name, work in tally.functions.items():
            held_under(self.functions, name).add(work.done, work.failed, work.spent_s)
            self.computed_s += work.spent_s
        for parent, call in [at for at in self.batches if self.has_ended(at[0])]:
            batch = self.batches.pop((parent, call))
            failed = self.failed.pop((parent, call), set())
            held_under(self.functions, batch.title).add(-batch.done.count(), -len(failed), 0.0)

    def has_ended(self, parent: str) -> bool:
        """Return whether a parent, or one above it, is done."""
        place = parse_item(parent)
        if place is None:
            return False
        batch = self.batches.get(place[:2])
        return (batch is not None and place[2] in batch.done) or self.has_ended(place[0])
