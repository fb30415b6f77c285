"""`rscoop drain`: let a host finish what it has begun, and leave the run."""

from __future__ import annotations

import click

from resilient_scoop.cli.base import DURATION, SETTINGS, note, run_and_host, run_and_host_arguments
from resilient_scoop.cli.reach import check_live
from resilient_scoop.runs.asked import Drain, ask


@click.command(
    context_settings=SETTINGS,
    epilog="""\b
Examples:
    rscoop drain alice
    rscoop drain evolve-7 alice --deadline 5m
""",
)
@run_and_host_arguments
@click.option(
    "--deadline", type=DURATION, metavar="DURATION",
    help="After this time, end calls that still run there; they run again on other hosts.  [default: none]",
)  # fmt: skip
def command(*, run: str, host: str | None, deadline: float | None) -> None:
    """Give HOST no new work; it leaves RUN when its work is done."""
    selected, name = run_and_host(run, host)
    check_live(selected, "drain")
    note(ask(selected.path, Drain(name, deadline), selected.id))
