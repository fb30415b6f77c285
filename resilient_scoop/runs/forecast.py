"""Forecast of a resume: what it will keep and compute, per function, from the journal alone.

FT1  A result is *reused* if its parent is not done and the code of its function is unchanged (or the
    user keeps it): exactly the results that a replay takes from the history, if the parents make the
    same calls. Results of calls that its newest checkpoints cover are counted separately: a replay
    does not need them.
FT2  Only the replay can know whether arguments are the same, because it makes them; and which results
    have moved to other places (`core.parent.moved`): the number of possible ones is counted
    (`movable`). Items that an earlier replay found to differ were called again, and are counted
    (`renewed`).
FT3  The needed time is an estimate: items times the mean of the measured results of that function.
    Items of a function that was never measured, and parents (which are not measured), are counted
    separately.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import msgspec

from resilient_scoop.core.events import Table
from resilient_scoop.core.facts import checkpoints
from resilient_scoop.core.facts.intervals import Intervals
from resilient_scoop.core.facts.visitor import LogVisitor
from resilient_scoop.runs.reports import REPLAY_PER_S
from resilient_scoop.runs.stored_state import read_defines
from resilient_scoop.wire import messages as wire

if TYPE_CHECKING:
    from collections.abc import Container, Iterable

    from resilient_scoop.core.facts.parent import ParentFacts
    from resilient_scoop.core.facts.state import DurableState
    from resilient_scoop.core.ports import Readable

START_S: Final = 0.5


class FunctionForecast(msgspec.Struct, frozen=True, kw_only=True):
    """The items of one function, by what a resume does with them. Times in CPU seconds, all workers."""

    name: str
    reused: int = 0
    changed: int = 0  # recomputed: its code has changed
    failed: int = 0  # failed; recomputed with --retry-failed, else reused
    in_flight: int = 0
    in_doubt: int = 0
    renewed: int = 0  # were called again by an earlier replay, because their arguments differed
    saved_s: float = 0.0
    needed_s: float = 0.0
    unmeasured: int = 0  # items to be computed, of unknown duration


class ForecastReport(msgspec.Struct, frozen=True, kw_only=True):
    """The forecast of a resume."""

    functions: list[FunctionForecast]
    retry_failed: bool
    calls_open: int  # batches of the script that are not done
    replay_s: float
    covered: int = 0  # items done before the checkpoint from which the parent continues
    movable: int = 0  # results that can be found at other places, by function and arguments (FT2)

    def total(self, what: str) -> float:
        """Return the sum of a column."""
        found: float = sum(getattr(each, what) for each in self.functions)
        return found


@dataclass(slots=True)
class _ResultRun:
    """Results of consecutive items of a batch, made by the same code."""

    start: int
    stop: int
    fingerprint: bytes
    failed: frozenset[int]  # item numbers
    each_s: float  # negative: not measured


@dataclass(slots=True)
class _ForecastCall:
    made: list[_ResultRun] = field(default_factory=list)
    known: Intervals = field(default_factory=Intervals)  # items of `made`
    renewed: Intervals = field(default_factory=Intervals)

    def add(self, item: wire.Outcome) -> None:
        stop = item.start + len(item.values)
        self.drop(item.start, stop)
        failed = frozenset(item.start + at for at in item.failed)
        each_s = item.spent_s / len(item.values) if item.spent_s >= 0 and item.values else -1.0
        self.made.append(_ResultRun(item.start, stop, item.fingerprint, failed, each_s))
        self.known.add(item.start, stop)

    def drop(self, start: int, stop: int) -> None:
        """Remove results that were replaced."""
        if not self.known.overlap(start, stop):
            return
        self.known.discard(start, stop)
        kept = []
        for each in self.made:
            for low, high in (
                (each.start, min(each.stop, start)),
                (max(each.start, stop), each.stop),
            ):
                if low < high:
                    kept.append(_ResultRun(low, high, each.fingerprint, each.failed, each.each_s))
        self.made = kept


@dataclass(slots=True)
class _Function:
    name: str
    counts: dict[str, int] = field(default_factory=dict)
    saved_s: float = 0.0
    measured: int = 0
    measured_s: float = 0.0
    to_do: int = 0

    def count(self, what: str, items: int) -> None:
        self.counts[what] = self.counts.get(what, 0) + items


class Forecast(LogVisitor):
    """A fold of the journal into the forecast of a resume."""

    def __init__(
        self,
        state: DurableState,
        defines: dict[bytes, wire.Define],
        changed: Container[bytes],
        *,
        retry_failed: bool,
    ) -> None:
        self.state = state
        self.changed = changed  # fingerprints whose results are not kept
        self.retry_failed = retry_failed
        self.calls: dict[tuple[str, int], _ForecastCall] = {}
        self.functions: dict[str, _Function] = {}
        self.movable = 0
        self.over = {path: checkpoints.covered(parent) for path, parent in state.parents.items()}
        self.covered = sum(parent.dropped_items for parent in state.parents.values())
        self.names = {
            each.fingerprint: (each.options.name or each.name).rpartition(":")[2]
            for each in defines.values()
        }

    def take(self, record: wire.Logged) -> None:
        """Add a record of the LOG; records of one parent arrive in order."""
        if record.parent in self.state.parents:  # else its parent is done: it does not run again
            self.visit(record)

    def ended(self, parent: str, outcome: wire.Outcome) -> None:
        """Add results."""
        self.movable += (len(outcome.values) - len(outcome.failed)) if outcome.pure else 0
        if outcome.call >= 0:  # else from the source of a fork, not bound to a place here
            self.calls.setdefault((parent, outcome.call), _ForecastCall()).add(outcome)

    def cut_off(self, parent: str, call: int, stop: int) -> None:
        """Drop results beyond the end of a batch."""
        found = self.calls.get((parent, call))
        if found is not None:
            found.drop(stop, 1 << 62)

    def renewed(self, parent: str, call: int, start: int, stop: int) -> None:
        """Drop results that are computed again."""
        found = self.calls.setdefault((parent, call), _ForecastCall())
        found.drop(start, stop)
        found.renewed.add(start, stop)

    def result(self) -> ForecastReport:
        """Return the forecast (FT1 to FT3)."""
        for (path, number), call in self.calls.items():
            if number in self.over[path]:
                if number not in self.state.parents[path].dropped:  # else it is already counted
                    self.covered += call.known.count()
                continue
            for made in call.made:
                self._count_made(made)
            for start, stop in call.renewed:
                self._count_renewed(call, start, stop)
        for parent in self.state.parents.values():
            self._count_undone(parent)
        found = [self._forecast_of(each) for each in self.functions.values()]
        found.sort(key=lambda each: (-each.reused - each.changed - each.in_flight, each.name))
        kept = sum(each.reused for each in found)
        root = self.state.parents.get("0")
        return ForecastReport(
            functions=found, retry_failed=self.retry_failed,
            calls_open=0 if root is None else len(root.batches),
            replay_s=kept / REPLAY_PER_S + START_S, covered=self.covered, movable=self.movable,
        )  # fmt: skip

    def _function(self, fingerprint: bytes) -> _Function:
        name = self.names.get(fingerprint, "?")
        return self.functions.setdefault(name, _Function(name))

    def _count_made(self, made: _ResultRun) -> None:
        function, items = self._function(made.fingerprint), made.stop - made.start
        failed = sum(made.start <= index < made.stop for index in made.failed)
        if made.each_s >= 0:
            function.measured += items
            function.measured_s += items * made.each_s
        if made.fingerprint in self.changed:
            function.count("changed", items)
            function.to_do += items
            return
        function.count("failed", failed)
        again = failed if self.retry_failed else 0
        function.to_do += again
        function.count("reused", items - again)
        function.saved_s += (items - again) * max(0.0, made.each_s)

    def _count_renewed(self, call: _ForecastCall, start: int, stop: int) -> None:
        for made in call.made:
            items = min(stop, made.stop) - max(start, made.start)
            if items > 0:
                self._function(made.fingerprint).count("renewed", items)

    def _count_undone(self, parent: ParentFacts) -> None:
        for number, batch in parent.batches.items():
            intents = parent.intents.get(number)
            for low, high in batch.undone:
                at = low
                while at < high:
                    piece = batch.piece_at(at)
                    assert piece is not None, "S1"
                    stop = min(high, piece.stop)
                    doubt = [] if intents is None else intents.overlap(at, stop)
                    doubts = sum(b - a for a, b in doubt)
                    function = self._function(self.state.fingerprint(piece.fn))
                    function.count("in_flight", stop - at - doubts)
                    function.count("in_doubt", doubts)
                    function.to_do += stop - at - doubts
                    at = stop

    def _forecast_of(self, function: _Function) -> FunctionForecast:
        mean_s = function.measured_s / function.measured if function.measured else None
        counts = {what: count for what, count in function.counts.items() if count}
        return FunctionForecast(
            name=function.name, saved_s=function.saved_s,
            needed_s=0.0 if mean_s is None else mean_s * function.to_do,
            unmeasured=function.to_do if mean_s is None else 0, **counts,
        )  # fmt: skip


def make_forecast(
    view: Readable, state: DurableState, changed: Iterable[bytes], *, retry_failed: bool
) -> ForecastReport:
    """Return the forecast of a resume; `changed`: fingerprints of code whose results are not kept."""
    forecast = Forecast(state, read_defines(view), frozenset(changed), retry_failed=retry_failed)
    for _, raw in view.scan(Table.LOG):
        forecast.take(wire.decode_logged(raw))
    return forecast.result()
