"""The items in the log of a run."""

from __future__ import annotations

from pathlib import Path

from resilient_scoop import runs
from resilient_scoop.wire import messages as wire
from tests.unit.cli_runs import FIRST, journaled, log, new, part


def states(state: Path, *records: wire.Logged) -> dict[str, str]:
    journaled(new(state), *(log(seq, record) for seq, record in enumerate(records, 7)))
    return {each.path: each.state for each in runs.open_run("last", state).items("0.0")}


def test_items_beyond_the_end_of_a_shortened_batch_are_gone(tmp_path: Path) -> None:
    found = states(tmp_path, wire.Calls("0", FIRST, [part(0, 0, 7, last=True)]))
    assert found == {f"0.0[{index}]": "done" for index in range(7)}


def test_items_that_are_called_after_a_shorter_batch_are_computed_again(tmp_path: Path) -> None:
    shorter = wire.Calls("0", FIRST, [part(0, 0, 6, last=True)])
    longer = wire.Calls("0", FIRST, [part(0, 6, 2, last=True)])
    found = states(tmp_path, shorter, longer)
    assert [found[f"0.0[{index}]"] for index in range(5, 8)] == ["done", "in flight", "in flight"]
    assert "0.0[8]" not in found
