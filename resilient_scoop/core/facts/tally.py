"""Totals that outlive the records they count.

  N1  An item is counted in the log or in the tally, never in both: the tally changes in the very
      transaction that erases the records.
  N2  What the tally says of processes that died, and of second tries, only grows.
  N3  A journal that has a record of a death has a tally. Deaths in a run that is stopping are blamed
      and not counted; recovery counts records only where there is no tally, as in early versions.

A parent's end erases all records below it, and a checkpoint those that it covers. Without totals of
them a run of nested calls would seem to lose results.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from resilient_scoop.wire.tally import FunctionWork, Tally

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from resilient_scoop.core.facts.parent import ParentFacts
    from resilient_scoop.wire.callables import Define
    from resilient_scoop.wire.messages import Outcome, Outcomes

FUNCTIONS_MAX = 200
TITLES_MAX = 10_000
OTHERS = "(others)"
"""Represents functions beyond `FUNCTIONS_MAX`, so that generated names cost nothing."""


def held_under(functions: dict[str, FunctionWork], name: str) -> FunctionWork:
    """Return a function's counts; make them on first use."""
    found = functions.get(name)
    if found is None:
        if len(functions) >= FUNCTIONS_MAX:
            name = OTHERS
        found = functions.setdefault(name, FunctionWork())
    return found


class Totals:
    """The tally of one run, as the broker keeps it; `defines` is that of the state."""

    def __init__(self, defines: Mapping[bytes, Define]) -> None:
        self.counts = Tally(functions={})
        self.titles: dict[bytes, str] = {}  # of functions, by fingerprint
        self.is_new = False  # it must be written
        self.is_known = False  # the journal has one: that of a later version than the first ones
        self._defines = defines

    def begin(self, tally: Tally) -> None:
        """Load the tally of the journal."""
        self.counts, self.is_known = tally, True

    def died(self, count: int = 1) -> None:
        """Count processes that died without being stopped (N2)."""
        self.counts.crashes += count
        self.is_new = True

    def handed_out_again(self, count: int) -> None:
        """Count items of a worker that died (N2)."""
        self.counts.resubmitted += count
        self.is_new = self.is_new or count > 0

    def tried_again(self, count: int) -> None:
        """Count second tries under `retries=` (N2)."""
        if count:
            self.counts.retried += count
            self.is_new = True

    def erase(self, work: dict[str, FunctionWork], items: int = 0) -> None:
        """Add the counts of records that are erased in this turn (N1)."""
        for name, each in work.items():
            held_under(self.counts.functions, name).add(each.done, each.failed, each.spent_s)
        self.counts.gone += items
        self.is_new = self.is_new or bool(work) or items > 0

    def count(
        self, parent: ParentFacts, outcome: Outcome, spans: Sequence[tuple[int, int]]
    ) -> None:
        """Count items of an outcome that is logged. It is done for every outcome: no lookup by name."""
        work = parent.work.get(outcome.fingerprint)
        if work is None:
            self.title_of(outcome.fingerprint)  # it may be dropped before it is needed
            work = _work(parent, outcome.fingerprint)
        size = len(outcome.values)
        if len(spans) == 1 and spans[0][1] - spans[0][0] == size:
            work.done += size
            if outcome.failed:
                work.failed += len(outcome.failed)
            if outcome.spent_s > 0:
                work.spent_s += outcome.spent_s
            return
        items = sum(high - low for low, high in spans)
        share = items / max(1, size)
        work.add(items, failed_within(outcome, spans), max(0.0, outcome.spent_s) * share)

    def uncount(self, parent: ParentFacts, record: Outcomes) -> None:
        """Move a record's counts to the tally: it is erased in this turn (N1)."""
        for outcome in record.items:
            work = FunctionWork(len(outcome.values), len(outcome.failed), max(0.0, outcome.spent_s))
            mine = _work(parent, outcome.fingerprint)
            mine.add(-work.done, -work.failed, -work.spent_s)
            self.erase({self.title_of(outcome.fingerprint): work})

    def by_title(self, parent: ParentFacts) -> dict[str, FunctionWork]:
        """Return the totals of the outcomes in a parent's log, by the functions' names."""
        found: dict[str, FunctionWork] = {}
        for fingerprint, work in parent.work.items():
            name = self.title_of(fingerprint) if fingerprint else OTHERS
            held_under(found, name).add(work.done, work.failed, work.spent_s)
        return found

    def title_of(self, fingerprint: bytes) -> str:
        """Return the name of the function that has a fingerprint."""
        found = self.titles.get(fingerprint)
        if found is None:
            if len(self.titles) > TITLES_MAX:
                self.titles.clear()
            for define in self._defines.values():
                self.titles[define.fingerprint] = title(define)
            found = self.titles.setdefault(fingerprint, OTHERS)
        return found


def failed_within(outcome: Outcome, spans: Iterable[tuple[int, int]]) -> int:
    """Return how many items of these runs of an outcome are exceptions."""
    if not outcome.failed:
        return 0
    first = outcome.start
    return sum(sum(low <= first + at < high for at in outcome.failed) for low, high in spans)


def _work(parent: ParentFacts, fingerprint: bytes) -> FunctionWork:
    found = parent.work.get(fingerprint)
    if found is None:
        key = fingerprint if len(parent.work) < FUNCTIONS_MAX else b""
        found = parent.work.setdefault(key, FunctionWork())
    return found


def title(define: Define) -> str:
    """Return a callable's name, for display."""
    return define.options.name or define.name.rpartition(":")[2]
