"""`rscoop failures`: show the failed calls of a run with arguments, attempts and traceback."""

from __future__ import annotations

import click
import msgspec

from resilient_scoop.cli.base import SCHEMA, SETTINGS, json_option, print_json, run_argument
from resilient_scoop.counts import counted
from resilient_scoop.runs.failed_items import FailedItem, dropped_failures, failed_items
from resilient_scoop.runs.folder import RunDir
from resilient_scoop.runs.status import open_view


class FailuresReport(msgspec.Struct, frozen=True):
    """The `--json` output."""

    schema: int
    id: str
    total: int
    failures: list[FailedItem]
    dropped: dict[
        str, int
    ]  # by function: below tasks that have ended, and no longer in the journal


@click.command(
    context_settings=SETTINGS,
    epilog="""\b
Examples:
    rscoop failures                        the newest run
    rscoop failures evolve-7 --limit 100
    rscoop failures --json | jq -r '.failures[].call'
""",
)
@run_argument
@click.option(
    "--limit", type=click.IntRange(min=1), default=20, metavar="N",
    help="Show N failures at most.  [default: 20]",
)  # fmt: skip
@click.option("--no-traceback", is_flag=True, help="One line per failure.")
@json_option
def command(*, run: RunDir, limit: int, no_traceback: bool, as_json: bool) -> None:
    """Show the failed calls of RUN.

    Each call is shown with its arguments, the number of attempts, and the worker's traceback, without
    importing your code. The journal no longer has the calls of tasks that have ended, unless the run was
    started with --keep-history.
    """
    info = run.load()
    view = open_view(run)
    items: list[FailedItem] = []
    total = 0
    dropped: dict[str, int] = {}
    if view is not None:
        with view:
            items, total = failed_items(view, limit)
            if not info.keep_history:
                dropped = dropped_failures(view)
    if as_json:
        print_json(FailuresReport(SCHEMA, run.id, total, items, dropped))
        return
    for item in items:
        click.echo("\n".join(_lines(item, traceback=not no_traceback)))
    if total > len(items):
        click.echo(f"{total - len(items)} more: --limit {total}")
    for name, count in dropped.items():
        click.echo(
            f"{name}: {counted(count, 'failed call')} of tasks that have ended; their records were dropped "
            "(start the run with --keep-history to keep them)"
        )
    if not total:
        more = "other " if dropped else ""
        click.echo(f"run {run.id}: no {more}call in the journal has failed")
        return
    again = f"rscoop resume --retry-failed {run.id}"
    if info.in_process:
        again = "open its session with retry_failed=True"
    click.echo(
        f"run {run.id}: {counted(total, 'call')} failed; to compute them again: {again}", err=True
    )


def _lines(item: FailedItem, *, traceback: bool) -> list[str]:
    tries = f", after {item.attempts} attempts" if item.attempts > 1 else ""
    first = item.message.split("\n", 1)[0]
    lines = [f"{item.path} {item.call}: {item.type}: {first}{tries}"]
    if traceback and item.traceback:
        lines += [f"    {line}" for line in item.traceback.rstrip().split("\n")]
    return lines
