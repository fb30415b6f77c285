"""`rscoop revoke`: cut a host off from a run, at once."""

from __future__ import annotations

import click

from resilient_scoop.cli.base import SETTINGS, note, run_and_host, run_and_host_arguments
from resilient_scoop.cli.reach import check_live
from resilient_scoop.runs.asked import Revoke, ask


@click.command(context_settings=SETTINGS)
@run_and_host_arguments
def command(*, run: str, host: str | None) -> None:
    """Disconnect HOST from RUN at once, and reject its key.

    Its calls run again on other hosts. It can join again with a ticket of `rscoop invite`.
    """
    selected, name = run_and_host(run, host)
    check_live(selected, "revoke")
    note(ask(selected.path, Revoke(name), selected.id))
