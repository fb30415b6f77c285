"""`rscoop revoke`: cut a host off from a run, at once."""

from __future__ import annotations

import click

from resilient_scoop.cli.base import SETTINGS, note, run_and_host, run_and_host_arguments
from resilient_scoop.cli.reach import check_live
from resilient_scoop.runs.asked import Revoke, ask


@click.command(context_settings=SETTINGS)
@run_and_host_arguments
def command(*, run: str, host: str | None) -> None:
    """Cut HOST off from RUN: its connections are closed, and its key is not taken any more.

    What it was computing runs again elsewhere. `rscoop invite` lets it in again.
    """
    selected, name = run_and_host(run, host)
    check_live(selected, "revoke")
    note(ask(selected.path, Revoke(name), selected.id))
