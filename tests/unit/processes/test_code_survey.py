"""The number of results of each function's former code, counted in the log."""

from __future__ import annotations

from pathlib import Path

import pytest

from resilient_scoop.processes import code_survey
from resilient_scoop.runs.status import open_view
from resilient_scoop.wire import messages as wire
from tests.unit.cli_runs import FIRST, journaled, log, new, part


@pytest.mark.parametrize(
    ("again", "results"),
    [
        (None, 13),
        (part(0, 0, 10, last=True), 13),
        (part(0, 0, 7, last=True), 10),
        (part(0, 8, 2, last=True, fresh=True), 11),
    ],
)
def test_results_are_counted_unless_they_are_truncated_or_made_again(
    again: wire.Part | None, results: int, tmp_path: Path
) -> None:
    more = [] if again is None else [log(7, wire.Calls("0", FIRST, [again]))]
    view = open_view(journaled(new(tmp_path), *more))
    assert view is not None
    with view:
        (counted,) = code_survey._results(view).values()
    assert counted.results == results
