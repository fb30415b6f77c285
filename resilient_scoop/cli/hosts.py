"""`rscoop hosts`: list the hosts of a run, with their states and the reasons."""

from __future__ import annotations

import time
from typing import Final

import click
import msgspec

from resilient_scoop.cli.base import SCHEMA, SETTINGS, json_option, note, print_json, run_argument
from resilient_scoop.cli.tables import GAP, Column, fit, folded, width_here
from resilient_scoop.runs.display import duration
from resilient_scoop.runs.folder import RunDir
from resilient_scoop.runs.hosts import HostRow, host_rows, read_hosts, read_live_hosts
from resilient_scoop.runs.json_text import one_line

_COLORS: Final = {
    "up": "green",
    "running": "green",
    "draining": "yellow",
    "quarantined": "yellow",
    "starting": "cyan",
    "waiting": "cyan",
    "never came": "red",
    "gone": "red",
    "lost": "red",
    "unknown": "yellow",
}
_LOG_LINES: Final = 5


class HostList(msgspec.Struct, frozen=True):
    """The `--json` output. Durations in seconds; `live` says whether the run is running."""

    schema: int
    id: str
    live: bool
    hosts: list[HostRow]


@click.command(
    context_settings=SETTINGS,
    epilog="""\b
Examples:
    rscoop hosts                           the newest run
    watch -n 2 rscoop hosts k3x0q7am
    rscoop hosts --json | jq -r '.hosts[] | select(.state != "up") | .name'
""",
)
@run_argument
@json_option
def command(*, run: RunDir, as_json: bool) -> None:
    """List the hosts of RUN with state, workers and last message.

    Below the table, the command says why a host is missing. SEEN is the time since the host's last
    message. LOST counts items that other hosts took over because the host was lost. A host that failed is
    tried again until the run ends; if it was lost repeatedly, it first spends some time in quarantine.
    """
    run.load()
    is_live = run.is_held()
    now = time.time()  # noqa: TID251 - for display
    rows = host_rows(read_hosts(run.path), read_live_hosts(run.path), now)
    if as_json:
        print_json(HostList(SCHEMA, run.id, is_live, rows))
    elif not rows:
        note(f"run {run.id} uses no other host")
    else:
        if not is_live:
            note(f"run {run.id} is not running; these are its hosts as they were last seen")
        _print_table(rows)
        for line in [each for row in rows for each in _reasons(row, is_live=is_live)]:
            click.echo(line)


_COLUMNS: Final = (
    Column("HOST", is_cut=True),
    Column("STATE"),
    Column("WORKERS", rank=3, is_right=True),
    Column("BUSY", rank=2, is_right=True),
    Column("DONE", rank=4, is_right=True),
    Column("LOST", rank=6, is_right=True),
    Column("RTT", rank=7, is_right=True),
    Column("SEEN", rank=1, is_right=True),
    Column("LIMIT", rank=5, is_right=True),
)
_STATE: Final = 1


def _print_table(rows: list[HostRow]) -> None:
    cells = [
        (
            one_line(row.name),
            one_line(row.state),
            "-" if row.workers is None else str(row.workers),
            str(row.busy),
            str(row.done),
            str(row.lost_items),
            "-" if row.rtt_ms is None else f"{row.rtt_ms:.1f}ms",
            "-" if row.heard_s is None else duration(row.heard_s),
            "-" if row.until_s is None else duration(row.until_s),
        )
        for row in rows
    ]
    visible, lines = fit(_COLUMNS, cells, width_here())
    at = visible.index(_STATE)
    for number, line in enumerate(lines):
        if number:
            color = _COLORS.get(rows[number - 1].state)
            line[at] = click.style(line[at], fg=color) if color else line[at]
        click.echo(GAP.join(line).rstrip())


def _reasons(row: HostRow, *, is_live: bool) -> list[str]:
    """Return lines that say why a host is not there, and when it is tried again."""
    why = row.why.removeprefix(f"{row.name}: ")
    parts = [one_line(why)] if why else []
    if is_live and row.quarantine_s:
        parts.append(
            f"it was lost repeatedly and is in quarantine for another {duration(row.quarantine_s)}"
        )
    elif is_live and row.again_s >= 1.0:
        parts.append(f"tried again in {duration(row.again_s)}")
    if not parts:
        return []
    log = [f"    {one_line(line)}" for line in row.log if line.strip()][-_LOG_LINES:]
    return [*folded(f"{one_line(row.name)}: {'; '.join(parts)}"), *log]
