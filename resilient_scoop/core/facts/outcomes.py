"""Parts of an outcome, as separate outcomes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from resilient_scoop import ids
from resilient_scoop.core.facts.intervals import Intervals
from resilient_scoop.wire.messages import Outcome

if TYPE_CHECKING:
    from collections.abc import Sequence


def parts_of(outcome: Outcome, spans: Sequence[tuple[int, int]]) -> list[Outcome]:
    """Return the parts of an outcome that count, as separate outcomes."""
    first = outcome.start
    share = outcome.spent_s / max(1, len(outcome.values))
    return [
        Outcome(
            outcome.call, low, outcome.fingerprint,
            ids.digests_of(outcome.digests, low - first, high - first),
            outcome.values[low - first : high - first],
            [i - (low - first) for i in outcome.failed if low - first <= i < high - first],
            share * (high - low), outcome.task, outcome.pure, outcome.once,
        )
        for low, high in spans
    ]  # fmt: skip


def succeeded(outcome: Outcome) -> list[Outcome]:
    """Return the parts of an outcome whose items did not fail, as separate outcomes."""
    spans = Intervals([(outcome.start, outcome.start + len(outcome.values))])
    for index in outcome.failed:
        spans.discard(outcome.start + index, outcome.start + index + 1)
    return parts_of(outcome, list(spans))
