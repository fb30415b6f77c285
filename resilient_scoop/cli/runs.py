"""`rscoop runs`: list the runs, oldest first, with their states."""

from __future__ import annotations

import time

import click
import msgspec

from resilient_scoop.cli.base import (
    SCHEMA,
    SETTINGS,
    json_option,
    print_json,
    size,
    state_folder,
    utc,
)
from resilient_scoop.cli.tables import GAP, Column, fit, width_here
from resilient_scoop.errors import RscoopError
from resilient_scoop.runs.catalog import RunEntry, list_runs
from resilient_scoop.runs.display import duration
from resilient_scoop.runs.lifetimes import ran_s
from resilient_scoop.runs.status import (
    RunState,
    RunStatus,
    cached_status,
    state_of,
    state_of_error,
)

_COLORS = {
    RunState.RUNNING: "cyan",
    RunState.FINISHED: "green",
    RunState.FAILED: "red",
    RunState.STOPPED: "yellow",
    RunState.DAMAGED: "red",
    RunState.NEWER: "yellow",
}


class RunRow(msgspec.Struct, frozen=True, kw_only=True):
    """One run in the `--json` output."""

    id: str
    name: str | None = None
    script: str | None = None
    state: RunState
    problem: str | None = None
    done: int = 0
    total_known: int = 0
    failed: int = 0
    exit_code: int | None = None
    workers: int = 0
    ran_s: float | None = None
    created_at: str | None = None
    journal_bytes: int = 0


class RunList(msgspec.Struct, frozen=True):
    """The `--json` output."""

    schema: int
    runs: list[RunRow]


@click.command(
    context_settings=SETTINGS,
    epilog="""\b
Examples:
    rscoop runs
    rscoop runs --last 5
    rscoop runs --state stopped
    rscoop runs --json | jq -r '.runs[] | select(.state == "stopped") | .id'
""",
)
@click.option(
    "--state", "states", multiple=True, type=click.Choice([each.value for each in RunState]),
    metavar="STATE",
    help="Only runs in this state; may be given several times: running, finished, failed, stopped, "
    "damaged, newer-format.",
)  # fmt: skip
@click.option(
    "--last", "last", type=click.IntRange(min=1), metavar="N", help="Only the newest N runs."
)
@json_option
def command(*, states: tuple[str, ...], last: int | None, as_json: bool) -> None:
    """List the runs with state, progress, duration and size.

    TOOK is the time that a run has been running, all resumes together. `rscoop resume` continues a
    run that is `stopped` or `failed`.
    """
    entries = list_runs(state_folder())
    if not states and last:
        entries = entries[-last:]
    rows = [row_of(entry) for entry in entries]
    if states:
        rows = [row for row in rows if row.state in states][-last if last else 0 :]
    if as_json:
        print_json(RunList(SCHEMA, rows))
    elif not rows:
        which = f"runs that are {' or '.join(states)}" if states and entries else "runs"
        click.echo(f"no {which} in {state_folder()}", err=True)
    else:
        now = time.time()  # noqa: TID251 - ages are for display
        created = {entry.run.id: entry.info.created_at for entry in entries if entry.info}
        _print_table(rows, {key: duration(now - at) for key, at in created.items()})


def row_of(entry: RunEntry) -> RunRow:
    """Return a run's row; it also says if the run cannot be read."""
    info = entry.info
    if info is None:
        return RunRow(
            id=entry.run.id, state=state_of_error(entry.problem), problem=str(entry.problem)
        )
    status, problem = RunStatus(), None
    try:
        status = cached_status(entry.run, info)
        state = state_of(entry.run, status.ended)
    except RscoopError as error:
        state, problem = state_of_error(error), str(error)
    return RunRow(
        id=entry.run.id,
        name=info.name,
        script=info.title,
        state=state,
        problem=problem,
        done=status.done,
        total_known=status.total_known,
        failed=status.failed,
        exit_code=status.ended.code if status.ended else None,
        workers=info.workers,
        ran_s=ran_s(entry.run.path, time.time() if state is RunState.RUNNING else None),  # noqa: TID251 - ages are for display
        created_at=utc(info.created_at),
        journal_bytes=status.journal_bytes,
    )


_COLUMNS = (
    Column("ID"),
    Column("NAME", rank=3, is_cut=True),
    Column("SCRIPT", rank=1, is_cut=True),
    Column("STATE"),
    Column("DONE"),
    Column("TOOK", rank=2),
    Column("AGE", rank=4),
    Column("SIZE", rank=5),
)
_STATE = 3


def _print_table(rows: list[RunRow], ages: dict[str, str]) -> None:
    cells = [
        (
            row.id,
            row.name or "-",
            row.script or "-",
            row.state.value,
            f"{row.done}/{row.total_known}",
            "-" if row.ran_s is None else duration(row.ran_s),
            ages.get(row.id, "-"),
            size(row.journal_bytes),
        )
        for row in rows
    ]
    visible, lines = fit(_COLUMNS, cells, width_here())
    at = visible.index(_STATE)
    for number, line in enumerate(lines):
        if number:
            line[at] = click.style(line[at], fg=_COLORS[rows[number - 1].state])
        click.echo(GAP.join(line).rstrip())
    for row in rows:
        if row.problem:
            click.echo(f"{row.id}: {row.problem}", err=True)
