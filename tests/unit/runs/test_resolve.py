"""Which items of a run can be resolved, in journals as a broker writes them."""

from __future__ import annotations

import json
from pathlib import Path

from resilient_scoop.core.events import Change, Put, Table
from resilient_scoop.runs.folder import RunDir
from resilient_scoop.wire import messages as wire
from resilient_scoop.wire.broker_errors import broker_error
from tests.unit.bench import RISKY, digests
from tests.unit.cli_runs import ENDED, FIRST, RAISED, journaled, log, new, rscoop

MARKS = digests(*range(4))


def outcome(index: int, payload: bytes, *, failed: bool) -> wire.Outcome:
    mark = MARKS[8 * index : 8 * index + 8]
    return wire.Outcome(2, index, RISKY.fingerprint, mark, [payload], [0] if failed else [])


def lost(index: int) -> wire.Outcome:
    payload = broker_error("lost", f"0.2[{index}]", "risky")
    return outcome(index, payload, failed=True)


def run_with_lost(state: Path, *more: Change) -> RunDir:
    """Return a run: item 0 is lost, 1 was lost and computed after all, 2 is in doubt, 3 raised."""
    asked = wire.Part(2, 0, 4, RISKY.fn, MARKS, last=True)
    again = wire.Part(2, 1, 1, RISKY.fn, MARKS[8:16], last=False, fresh=True)
    return journaled(
        new(state),
        Put(Table.DEFINE, RISKY.fn, wire.encode(RISKY)),
        log(11, wire.Calls("0", FIRST, [asked])),
        log(12, wire.Intent("0", 2, 0, 4, MARKS)),
        log(13, wire.Outcomes("0", [lost(0), lost(1), outcome(3, b"X", failed=True)])),
        log(14, wire.Calls("0", FIRST, [again])),
        log(15, wire.Outcomes("0", [outcome(1, b"V", failed=False)])),
        *more,
    )


def test_items_that_ended_as_lost_are_listed_after_items_in_doubt(tmp_path: Path) -> None:
    run_with_lost(tmp_path, RAISED)
    lines = rscoop(tmp_path, "resolve", "last").stdout.splitlines()
    ended = "ended as WorkerLostError; it can be resolved too"
    assert lines == ["0.2[2] risky", f"0.2[0] risky   {ended}"]
    found = json.loads(rscoop(tmp_path, "resolve", "last", "--json").stdout)
    assert [each["path"] for each in found["in_doubt"]] == ["0.2[2]"]
    assert [each["path"] for each in found["ended"]] == ["0.2[0]"]

    rscoop(tmp_path, "resolve", "last", "0.2[0]", "--done", "7")
    assert rscoop(tmp_path, "resolve", "last").stdout == "0.2[2] risky\n"


def test_an_item_beyond_the_end_of_a_shortened_batch_is_not_listed(
    tmp_path: Path,
) -> None:
    shorter = wire.Part(2, 0, 0, RISKY.fn, b"", last=True)
    run_with_lost(tmp_path, log(16, wire.Calls("0", FIRST, [shorter])))
    assert "0.2[" not in rscoop(tmp_path, "resolve", "last").stdout


def test_no_item_of_a_finished_run_is_listed(tmp_path: Path) -> None:
    run_with_lost(tmp_path, ENDED)
    assert "WorkerLostError" not in rscoop(tmp_path, "resolve", "last").stdout
