"""The items of a run, from the records of its log."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Literal, TypeVar

import msgspec

from resilient_scoop import ids
from resilient_scoop.core.facts.intervals import Intervals
from resilient_scoop.core.facts.tally import OTHERS
from resilient_scoop.core.facts.visitor import LogVisitor
from resilient_scoop.journal.view import JournalView
from resilient_scoop.runs.log import records
from resilient_scoop.wire import messages as wire

ItemState = Literal["done", "failed", "in flight"]


class Item(msgspec.Struct, frozen=True, kw_only=True):
    """One item of a batch: one call of a `map`, or a `submit`."""

    path: str
    """Its place in the run, as in "0.3[17]"; see `rscoop why`."""
    function: str
    state: ItemState
    seconds: float | None
    """Seconds of computing; None while it is not done, and for tasks that made calls themselves.

    Short items that ran one after another are measured together and share their time evenly.
    """


class _RecordedCall:
    """One batch, as recorded in the log, without values."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, int, bytes]] = []  # start, stop, function
        self.spent: list[tuple[int, int, float]] = []  # start, stop, seconds of each of these items
        self.ended, self.failed, self.given_up = Intervals(), Intervals(), Intervals()

    @functools.cached_property
    def spent_once(self) -> list[tuple[int, int, float]]:
        """Return `spent` without overlaps; the log has been read to its end."""
        return _latest(self.spent)

    def cut_off(self, stop: int) -> None:
        """Drop the items from `stop` on."""
        if any(each[1] > stop for each in self.asked):
            kept = [(start, min(end, stop), fn) for start, end, fn in self.asked if start < stop]
            self.asked = kept
        for each in (self.ended, self.failed, self.given_up):
            each.discard(stop, 1 << 62)

    def end(self, item: wire.Outcome) -> None:
        count = len(item.values)
        start, stop = item.start, item.start + count
        self.ended.add(start, stop)
        self.failed.discard(start, stop)
        for at in item.failed:
            self.failed.add(start + at, start + at + 1)
        if count and item.spent_s >= 0:  # a task that made calls is not measured
            self.spent.append((start, stop, item.spent_s / count))


class _Task(LogVisitor):
    """The batches of one task, or of the script, as recorded in the log."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.calls: dict[int, _RecordedCall] = {}

    def asked(self, _parent: str, part: wire.Part, _offset: int) -> None:
        self._call(part.call).asked.append((part.start, part.start + part.count, part.fn))

    def cut_off(self, _parent: str, call: int, stop: int) -> None:
        self._call(call).cut_off(stop)

    def renewed(self, _parent: str, call: int, start: int, stop: int) -> None:
        self._call(call).ended.discard(start, stop)
        self._call(call).failed.discard(start, stop)

    def ended(self, _parent: str, outcome: wire.Outcome) -> None:
        self._call(outcome.call).end(outcome)

    def given_up(self, record: wire.Abandoned) -> None:
        for start, stop in record.spans:
            self._call(record.call).given_up.add(start, stop)

    def _call(self, number: int) -> _RecordedCall:
        return self.calls.setdefault(number, _RecordedCall())

    def items(self, names: dict[bytes, str], wanted: str | None) -> Iterator[Item]:
        """Yield the items of all batches, or of one batch."""
        for number, call in sorted(self.calls.items()):
            if wanted is not None and wanted not in (self.path, ids.batch_path(self.path, number)):
                continue
            for start, stop, fn in _latest(call.asked):
                yield from _items(self.path, number, call, names.get(fn, OTHERS), start, stop)


T = TypeVar("T")


def _latest(spans: list[tuple[int, int, T]]) -> list[tuple[int, int, T]]:
    """Return spans without overlaps, in order; if two spans hold an item, the later one counts."""
    found: list[tuple[int, int, T]] = []
    seen = Intervals()
    for start, stop, value in reversed(spans):
        found += [(low, high, value) for low, high in seen.gaps(start, stop)]
        seen.add(start, stop)
    return sorted(found, key=lambda each: each[0])


def _items(
    parent: str, number: int, call: _RecordedCall, function: str, start: int, stop: int
) -> Iterator[Item]:
    spent = iter([each for each in call.spent_once if each[1] > start])
    now = next(spent, None)
    for index in range(start, stop):
        while now is not None and now[1] <= index:
            now = next(spent, None)
        is_done = index in call.ended
        if not is_done and index in call.given_up:
            continue  # its result is no longer read
        yield Item(
            path=ids.item_path(parent, number, index),
            function=function,
            state=_state_of(is_done=is_done, failed=index in call.failed),
            seconds=now[2] if is_done and now is not None and now[0] <= index else None,
        )


def _state_of(*, is_done: bool, failed: bool) -> ItemState:
    if failed:
        return "failed"
    return "done" if is_done else "in flight"


def tasks(view: JournalView) -> Iterator[_Task]:
    """Yield the recorded tasks one by one: the log keeps the records of each together."""
    task: _Task | None = None
    for record in records(view):
        if task is None or record.parent != task.path:
            if task is not None:
                yield task
            task = _Task(record.parent)
        task.visit(record)
    if task is not None:
        yield task
