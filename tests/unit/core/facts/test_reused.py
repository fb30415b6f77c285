"""How many of the results found in the journal are still the ones that parents get."""

from __future__ import annotations

import pytest

from resilient_scoop.ids import ROOT, item_path
from resilient_scoop.runs.reports import (
    JournalFindings,
    Report,
    broker_report,
    finished,
)
from resilient_scoop.wire import messages as wire
from tests.unit.bench import ORIGIN, PLAIN, W1, Bench, calls, granted, outcomes, part

CHILD = item_path(ROOT, 0, 0)


@pytest.fixture
def bench() -> Bench:
    """Return a broker that found ten results: of an open parent, a whole call, a part of one."""
    before = Bench()
    root = before.begin(W1)
    asked = before.tell(ORIGIN, PLAIN, *calls(part(0, 0, 1), attempt=root))
    (task,) = granted(asked, W1)
    nested = calls(part(0, 0, 3), parent=CHILD, attempt=wire.Attempt(before.broker.epoch, task.no))
    before.tell(W1, *nested, outcomes(0, 0, 3, parent=CHILD))
    before.tell(ORIGIN, *calls(part(1, 0, 4), part(2, 0, 5), attempt=root))
    before.tell(W1, outcomes(1, 0, 4), outcomes(2, 0, 3))
    bench = before.again(adopt=False)
    state = bench.broker.state
    assert bench.broker.ledger.reused.count == state.items_done == 10
    return bench


def ask(bench: Bench, *parts: wire.Part) -> int:
    """Let the script make a call; return how many results are still used."""
    root = bench.begin(W1)
    bench.tell(ORIGIN, PLAIN, *calls(*parts, attempt=root))
    return bench.broker.ledger.reused.count


def test_results_of_unchanged_calls_count_as_reused(bench: Bench) -> None:
    assert ask(bench, part(0, 0, 1), part(1, 0, 4), part(2, 0, 5)) == 10


def test_results_called_again_do_not_count(bench: Bench) -> None:
    again = [part(call, 0, 2, salt=1, last=False, fresh=True) for call in (1, 2)]
    assert ask(bench, *again) == 6


def test_results_computed_now_and_called_again_do_not_count_as_found(bench: Bench) -> None:
    root = bench.begin(W1)
    bench.tell(W1, outcomes(2, 3, 5))
    again = part(2, 2, 5, salt=1, fresh=True)
    bench.tell(ORIGIN, PLAIN, *calls(again, attempt=root))
    assert bench.broker.ledger.reused.count == 9
    bench.tell(W1, outcomes(2, 2, 5, salt=1))
    bench.tell(ORIGIN, *calls(part(2, 2, 5, salt=2, fresh=True), attempt=root))
    assert bench.broker.ledger.reused.count == 9


def test_results_beyond_a_shorter_map_do_not_count(bench: Bench) -> None:
    assert ask(bench, part(2, 0, 1)) == 8


def test_results_below_a_changed_item_do_not_count(bench: Bench) -> None:
    assert ask(bench, part(0, 0, 1, salt=1)) == 7


def test_the_last_line_of_a_run_counts_results_that_are_still_valid(bench: Bench) -> None:
    found = JournalFindings.begin(bench.broker.state, adopt=False)
    ask(bench, part(1, 0, 4, salt=1, fresh=True))
    report = broker_report(bench.broker, found, 0, ask=0, asked_over=False)
    assert "6 from the journal" in finished("r", report, 1.0)
    assert report.recovered == 10


def test_batches_of_single_calls_are_reported_by_their_number() -> None:
    bench = Bench()
    attempt = bench.begin(W1)
    parts = [part(call, 0, 1) for call in range(3)]
    bench.tell(ORIGIN, PLAIN, *calls(*parts, attempt=attempt))
    found = JournalFindings.begin(bench.broker.state, adopt=False)
    report = broker_report(bench.broker, found, 0, ask=0, asked_over=False)
    assert (report.batch, report.batch_total, report.items) == ("", -1, "3 batches open")
    bench.tell(ORIGIN, *calls(part(3, 0, 5), attempt=attempt))
    report = broker_report(bench.broker, found, 0, ask=0, asked_over=False)
    assert (report.batch, report.batch_total, report.items) == ("0.3 plain", 5, "")


def test_the_last_line_of_a_resume_names_the_time_of_all_starts() -> None:
    report = Report(done=3)
    assert finished("r", report, 2.0, ran_s=2.3).startswith("run r finished in 2.0 s: 3 results")
    assert finished("r", report, 2.0, ran_s=75.0).startswith(
        "run r finished in 2.0 s (1m15s in all):"
    )
