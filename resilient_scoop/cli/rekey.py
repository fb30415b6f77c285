"""`rscoop rekey`: make new keys for a live run."""

from __future__ import annotations

import click

from resilient_scoop.cli.base import SETTINGS, note, run_argument
from resilient_scoop.cli.reach import check_live
from resilient_scoop.runs.asked import Rekey, ask
from resilient_scoop.runs.folder import RunDir


@click.command(context_settings=SETTINGS)
@run_argument
def command(*, run: RunDir) -> None:
    """Replace the keys of RUN, because someone else may know one.

    All hosts are disconnected. Those that RUN reaches over SSH come back with new keys by themselves;
    others need a new ticket of `rscoop invite`.
    """
    check_live(run, "rekey")
    note(ask(run.path, Rekey(), run.id))
