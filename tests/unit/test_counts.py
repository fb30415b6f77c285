"""Counts, as users read them."""

from __future__ import annotations

from resilient_scoop.counts import counted
from resilient_scoop.ids import ROOT
from resilient_scoop.runs.counting import Count
from resilient_scoop.runs.reports import Report, finished, resuming
from resilient_scoop.wire import messages as wire
from tests.unit.bench import outcomes, part


def test_a_count_of_one_uses_the_singular() -> None:
    assert [counted(n, "item") for n in (0, 1, 2)] == ["0 items", "1 item", "2 items"]
    assert [counted(n, "crash", "crashes") for n in (1, 3)] == ["1 crash", "3 crashes"]


def test_a_run_of_one_item_uses_the_singular() -> None:
    report = Report(done=1, reused=1, resubmitted=1, crashes=1, recovered=1)
    assert "1 result, 1 from the journal, 1 resubmitted after 1 crash" in finished("r", report, 1.0)
    assert "nothing resubmitted after 1 crash" in finished("r", Report(crashes=1), 1.0)
    assert "1 result, 2 retries; more" in finished("r", Report(done=1, retried=2), 1.0)
    assert "1 result recovered" in resuming("r", report)[0]


def test_no_items_are_sent_after_a_map_is_given_up() -> None:
    count = Count()
    attempt = wire.Attempt(1, 1)
    count.take(wire.encode(wire.Calls(ROOT, attempt, [part(0, 0, 2, last=False)])))
    count.take(wire.encode(outcomes(0, 0, 2)))
    count.take(wire.encode(wire.Abandoned(ROOT, 0, [])))
    batch = count.batches[ROOT, 0]
    assert (batch.whole, batch.done.count(), batch.wanted) == (True, 2, 2)
