"""`rscoop cancel`: stop a run cleanly, or at once; its results are kept."""

from __future__ import annotations

import os
import select
import signal
import time
from typing import Final

import click

from resilient_scoop.cli.base import DURATION, SETTINGS, note, run_argument
from resilient_scoop.cli.reach import Reached, open_process, send, whom_to_ask
from resilient_scoop.errors import RunBusyError
from resilient_scoop.runs.folder import RunDir
from resilient_scoop.runs.status import is_live

_LINGER_S: Final = 5.0
"""The broker ends after its launcher; it has this time to close the journal."""
_POLL_S: Final = 0.05


@click.command(
    context_settings=SETTINGS,
    epilog="""\b
Examples:
    rscoop cancel
    rscoop cancel --now evolve-7        do not wait for calls that are running
    rscoop cancel --timeout 2m
""",
)
@run_argument
@click.option("--now", is_flag=True, help="Stop the run at once, as a second Ctrl-C does.")
@click.option(
    "--timeout", "timeout_s", type=DURATION, default="30s", metavar="DURATION",
    help="How long to wait for the end of the run.  [default: 30s]",
)  # fmt: skip
def command(*, run: RunDir, now: bool, timeout_s: float) -> None:
    """Stop RUN cleanly; it can be resumed.

    The command waits until no process of the run is left on this host.
    """
    if not is_live(run):
        note(f"run {run.id} is not live; nothing to stop")
        return
    process = whom_to_ask(run, "cancel")
    pidfd = open_process(process.pid)
    if pidfd is not None:
        try:
            _ask(pidfd, process, now=now)
            if not select.select([pidfd], [], [], timeout_s)[0]:
                raise RunBusyError(str(run.path), process.pid, os.uname().nodename)
        finally:
            os.close(pidfd)
    until = time.monotonic() + _LINGER_S
    while is_live(run) and time.monotonic() < until:
        time.sleep(_POLL_S)
    if is_live(run):
        remaining = whom_to_ask(run, "cancel")
        raise RunBusyError(str(run.path), remaining.pid, os.uname().nodename)
    note(f"run {run.id} is stopped; to continue: rscoop resume {run.id}")


def _ask(pidfd: int, process: Reached, *, now: bool) -> None:
    """Send the signal of Ctrl-C: unlike SIGTERM, it does not wait for checkpoints."""
    # A broker without a launcher is about to end, or does not respond; it ignores other signals.
    number = signal.SIGINT if process.role == "launcher" else signal.SIGKILL
    send(pidfd, number)
    if now:
        select.select([pidfd], [], [], _POLL_S)
        send(pidfd, number)
