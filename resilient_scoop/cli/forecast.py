"""`rscoop resume --dry-run`: what would be kept and computed, and what this saves and costs."""

from __future__ import annotations

from typing import Final

import click
import msgspec

from resilient_scoop.cli.base import SCHEMA, print_json
from resilient_scoop.cli.changed import weigh
from resilient_scoop.cli.tables import GAP, Column, fit, folded, width_here
from resilient_scoop.counts import counted
from resilient_scoop.processes.code_survey import look
from resilient_scoop.runs.display import duration
from resilient_scoop.runs.folder import RunDir, RunInfo
from resilient_scoop.runs.forecast import ForecastReport, FunctionForecast, make_forecast
from resilient_scoop.runs.status import (
    OutputTail,
    RunState,
    open_view,
    read_ended,
    state_of,
)
from resilient_scoop.runs.stored_state import read_state

_COLUMNS: Final = (
    Column("function", is_cut=True), Column("reused", is_right=True),
    Column("changed", rank=1, is_right=True), Column("failed", rank=3, is_right=True),
    Column("in flight", rank=4, is_right=True), Column("in doubt", rank=5, is_right=True),
    Column("saved", rank=2, is_right=True), Column("needed", is_right=True),
)  # fmt: skip
_INDENT: Final = 13
"""Column at which the values below the table begin."""


class Undecided(msgspec.Struct, frozen=True):
    """A function with results whose code has changed, without a decision of the user."""

    name: str
    results: int


class DryRunReport(msgspec.Struct, frozen=True):
    """The `--dry-run --json` output. `undecided` names changed functions without a decision.

    `missing` are functions with results that no longer exist in the code.
    """

    schema: int
    id: str
    state: RunState
    output_bytes: int
    undecided: list[Undecided]
    saved_s: float
    needed_s: float
    foretold: ForecastReport
    missing: list[Undecided] = []


def dry_run(
    run: RunDir,
    info: RunInfo,
    *,
    reuse: tuple[str, ...],
    recompute: tuple[str, ...],
    retry_failed: bool,
    as_json: bool,
) -> int:
    """Print what a resume with these options would do; nothing on disk changes."""
    view = open_view(run)
    if view is None:
        if as_json:
            nothing = ForecastReport(
                functions=[], retry_failed=retry_failed, calls_open=0, replay_s=0.0
            )
            print_json(DryRunReport(SCHEMA, run.id, RunState.STOPPED, 0, [], 0.0, 0.0, nothing))
        else:
            click.echo(
                f"run {run.id} ({info.title}) has not begun: a resume starts it from the beginning"
            )
        return 0
    with view:
        survey = look(run, info, view)
        verdict = weigh(run, survey.changed, reuse, recompute)
        undecided = [Undecided(title, results) for title, results in verdict.undecided.items()]
        missing = [Undecided(name, results) for name, results in sorted(survey.missing.items())]
        lost = set(verdict.lost)
        found = make_forecast(view, read_state(view, view.run), lost, retry_failed=retry_failed)
        output_bytes = sum(len(piece) for piece in OutputTail().pieces(view))
        state = state_of(run, read_ended(view))
    report = DryRunReport(
        SCHEMA, run.id, state, output_bytes, undecided, found.total("saved_s"),
        found.total("needed_s"), found, missing,
    )  # fmt: skip
    if as_json:
        print_json(report)
    else:
        show(run, info, report)
    return 0


def show(run: RunDir, info: RunInfo, report: DryRunReport) -> None:
    """Print a report, as wide as the terminal."""
    click.echo("\n".join(folded("\n".join(_lines(run, info, report)), _INDENT)))


def _lines(run: RunDir, info: RunInfo, report: DryRunReport) -> list[str]:
    found = report.foretold
    has = "has" if report.state in {RunState.FAILED, RunState.FINISHED} else "is"
    lines = [
        f"run {run.id} ({info.title}) {has} {report.state}; a resume would find:",
        *_table(found),
    ]
    if found.covered:
        lines.append(
            f"  covered    {counted(found.covered, 'result')} by checkpoints: not replayed"
        )
    saved, needed = _time(report.saved_s), _time(report.needed_s)
    unmeasured = int(found.total("unmeasured"))
    more = f", and {counted(unmeasured, 'item')} of unknown duration" if unmeasured else ""
    lines += [
        f"  saved      {saved} of computing; {counted(report.output_bytes, 'byte')} of output kept",
        f"  needed     about {needed} of computing for calls in flight or to be recomputed{more}",
        "             plus the calls that the script makes next, which are unknown",
        f"  replay     about {_time(found.replay_s)}, and the time of the script's own code",
        "  arguments  are compared during the replay; items whose arguments differ are recomputed",
    ]
    if found.movable:
        can = "result depends" if found.movable == 1 else "results depend"
        lines.append(
            f"             ({found.movable:,} {can} only on function and arguments: equal calls at "
            "other positions reuse them)"
        )
    if renewed := int(found.total("renewed")):
        lines.append(f"             (an earlier replay had {counted(renewed, 'such item')})")
    if (failed := int(found.total("failed"))) and not found.retry_failed:
        lines.append(
            f"  failed     {counted(failed, 'item')}; --retry-failed computes failed calls again"
        )
    if doubt := int(found.total("in_doubt")):
        lines.append(
            f"  in doubt   {counted(doubt, 'idempotent=False item')}, to end with WorkerLostError; or "
            f"record what happened: rscoop resolve {run.id}"
        )
    for each in report.undecided:
        lines.append(
            f"  changed    {each.name}: the code of {counted(each.results, 'result')} has changed; "
            f"resume with --recompute-changed={each.name} or --reuse-changed={each.name}"
        )
    for each in report.missing:
        lines.append(
            f"  missing    {each.name.rpartition(':')[2]}: the code no longer has this function; its "
            f"{counted(each.results, 'result is used', 'results are used')} only if the same code "
            "is called by another name"
        )
    return lines


def _table(found: ForecastReport) -> list[str]:
    if not found.functions:
        if found.covered:
            return []
        return ["  no calls yet"]
    width = width_here()
    rows = [_row(each) for each in found.functions]
    _, lines = fit(_COLUMNS, rows, None if width is None else width - len(GAP))
    return [GAP + GAP.join(cells) for cells in lines]


def _row(each: FunctionForecast) -> tuple[str, ...]:
    needed = _time(each.needed_s) if each.needed_s else ("?" if each.unmeasured else "-")
    counts = (each.reused, each.changed, each.failed, each.in_flight, each.in_doubt)
    saved = _time(each.saved_s) if each.saved_s else "-"
    return (each.name, *(str(count) if count else "-" for count in counts), saved, needed)


def _time(seconds: float) -> str:
    """Return a time for display, short ones with fractions."""
    return duration(seconds) if seconds >= 100 else f"{seconds:.2g}s"  # noqa: PLR2004 - three digits are enough
