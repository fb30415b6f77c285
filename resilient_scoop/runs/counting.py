"""The fold over a journal's LOG that counts: calls, results, failures, work by function, deaths."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from resilient_scoop.core.facts.intervals import Intervals
from resilient_scoop.core.facts.tally import OTHERS, held_under
from resilient_scoop.ids import parse_item
from resilient_scoop.wire.messages import (
    Abandoned,
    Calls,
    Checkpoint,
    Crashed,
    Outcomes,
    Part,
    Trimmed,
    decode_logged,
)

if TYPE_CHECKING:
    from resilient_scoop.wire.tally import Tally, Work


@dataclass(slots=True)
class ReplayFigures:
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
class Count:
    """A fold of the LOG in the order of its keys, which preserves the order within each parent."""

    titles: dict[bytes, str] = field(default_factory=dict)  # of functions, by fingerprint
    functions: dict[str, Work] = field(default_factory=dict)
    batches: dict[tuple[str, int], _Batch] = field(default_factory=dict)
    failed: dict[tuple[str, int], set[int]] = field(default_factory=dict)
    crashed: set[tuple[str, int, int]] = field(default_factory=set)
    crashes: int = 0
    computed_s: float = 0.0
    replays: dict[str, ReplayFigures] = field(default_factory=dict)
    trimmed: dict[str, int] = field(default_factory=dict)  # items whose records are gone

    def take(self, value: bytes) -> None:  # noqa: C901, PLR0912 - a table
        """Take in a record."""
        record = decode_logged(value)
        replay = self.replays.setdefault(record.parent, ReplayFigures(record.parent))
        replay.size_bytes += len(value)
        match record:
            case Checkpoint(parent=parent):
                self.replays[parent] = ReplayFigures(parent)
            case Trimmed(parent=parent, calls=spans, items=items):
                self.trimmed[parent] = items
                self._trim(parent, Intervals(spans))
            case Calls(parent=parent, parts=parts):
                for part in parts:
                    self._part(parent, part)
            case Outcomes(parent=parent, items=items):
                for item in items:
                    replay.results += len(item.values)
                    at = (parent, item.call)
                    batch = self.batches.setdefault(at, _Batch())
                    batch.done.add(item.start, item.start + len(item.values))
                    title = batch.title = self.titles.get(item.fingerprint, OTHERS)
                    spent_s = max(0.0, item.spent_s)
                    work = held_under(self.functions, title)
                    work.add(len(item.values), len(item.failed), spent_s)
                    self.computed_s += spent_s  # parents are not measured
                    if item.failed:
                        failed = self.failed.setdefault(at, set())
                        failed.update(item.start + index for index in item.failed)
            case Abandoned(parent=parent, call=call, spans=spans):
                batch = self.batches.setdefault((parent, call), _Batch())
                batch.whole = True
                for low, high in spans:
                    batch.given_up.add(low, high)
            case Crashed(parent=parent, call=call, index=index):
                self.crashes += record.reason != "timeout"
                self.crashed.add((parent, call, index))
            case _:
                pass  # observations and intents are not counted

    def _trim(self, parent: str, calls: Intervals) -> None:
        for held in (self.batches, self.failed):
            for at in [at for at in held if at[0] == parent and at[1] in calls]:
                del held[at]

    def _part(self, parent: str, part: Part) -> None:
        batch = self.batches.setdefault((parent, part.call), _Batch())
        stop = part.start + part.count
        batch.known = max(batch.known, stop)
        batch.whole |= part.last
        batch.fn = part.fn
        batch.given_up.discard(part.start, stop)
        if part.last and batch.known > stop:  # an earlier attempt had made more calls
            self._lose(parent, part.call, batch, stop, batch.known)
            batch.known = stop
            batch.given_up.discard(stop, 1 << 62)
        if part.fresh:
            self._lose(parent, part.call, batch, part.start, stop)

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
