"""The text of `rscoop resume --dry-run` on terminals of several widths."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from resilient_scoop.cli import forecast, tables
from resilient_scoop.cli.forecast import DryRunReport, Undecided
from resilient_scoop.runs.forecast import ForecastReport, FunctionForecast
from resilient_scoop.runs.status import RunState

FOUND = ForecastReport(
    functions=[
        FunctionForecast(name="Model.evaluate_all_with_a_long_name", reused=12, failed=2, saved_s=0.61),
        FunctionForecast(name="outer", reused=3),
    ],
    retry_failed=False, calls_open=0, replay_s=0.5,
)  # fmt: skip


@pytest.mark.parametrize("width", [80, 40])
@pytest.mark.parametrize(
    ("state", "begins"),
    [
        (RunState.FAILED, "run r1 (s.py) has failed; "),
        (RunState.STOPPED, "run r1 (s.py) is stopped; "),
    ],
)
def test_a_dry_run_fits_the_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *, width: int,
    state: RunState, begins: str,
) -> None:  # fmt: skip
    for module in (tables, forecast):
        monkeypatch.setattr(module, "width_here", lambda: width)
    report = DryRunReport(1, "r1", state, 15, [Undecided("f", 3)], 0.61, 0.0, FOUND)
    run, info = cast("Any", SimpleNamespace(id="r1")), cast("Any", SimpleNamespace(title="s.py"))
    forecast.show(run, info, report)
    lines = capsys.readouterr().out.splitlines()
    assert " ".join(lines).startswith(begins)
    assert max(map(len, lines)) <= width, lines
    head = next(line for line in lines if "function" in line)
    assert "reused" in head
    assert "needed" in head
