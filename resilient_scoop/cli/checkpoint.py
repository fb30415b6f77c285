"""`rscoop checkpoint`: make a live run save its checkpoint blocks, then stop or continue."""

from __future__ import annotations

import os
import select
import signal
import time
from pathlib import Path
from typing import Final

import click

from resilient_scoop.cli.base import DURATION, SETTINGS, note, run_argument
from resilient_scoop.cli.reach import open_process, send, whom_to_ask
from resilient_scoop.errors import RunStoppedError, UsageError
from resilient_scoop.processes.launcher.stopping import (
    GO_ON_SIGNAL,
    HandoverReport,
    read_report,
)
from resilient_scoop.processes.options import GRACE_S
from resilient_scoop.runs.folder import RunDir
from resilient_scoop.runs.status import is_live

_POLL_S: Final = 0.05
_YOUNG_S: Final = 5.0
"""A launcher handles signals within this time after its start."""


@click.command(
    context_settings=SETTINGS,
    epilog="""\b
Examples:
    rscoop checkpoint                       save and stop, to be resumed
    rscoop checkpoint --go-on evolve-7      save and continue
    rscoop checkpoint --no-wait
\b
Exit codes:
    0    the open blocks were saved, or none was open; with --no-wait: the run was asked
    2    the command cannot be executed as given, or --timeout has passed
    75   a block was not committed in time, or a process did not answer
""",
)
@run_argument
@click.option("--go-on", is_flag=True, help="Let the run continue after the checkpoints.")
@click.option("--no-wait", is_flag=True, help="Ask for checkpoints without waiting for them.")
@click.option(
    "--timeout", "timeout_s", type=DURATION, default=f"{GRACE_S + 30:.0f}s", metavar="DURATION",
    help="How long to wait for the checkpoints.  [default: 330s; the run itself waits 300s]",
)  # fmt: skip
def command(*, run: RunDir, go_on: bool, no_wait: bool, timeout_s: float) -> int:
    """Save the open checkpoint blocks of RUN, then stop it.

    Each `durable` block that is open in the script or in a task is saved at its next commit. Then
    the run stops and can be resumed; with --go-on it continues.
    """
    if not is_live(run):
        raise UsageError(
            f"run {run.id} is not live, so there is nothing to save; see `rscoop status {run.id}`"
        )
    process = whom_to_ask(run, "checkpoint")
    pidfd = open_process(process.pid) if process.role == "launcher" else None
    if pidfd is None:
        raise UsageError(f"run {run.id} is ending; to continue: rscoop resume {run.id}")
    number = GO_ON_SIGNAL if go_on else signal.SIGUSR1
    try:
        _wait_until_heard(run, process.pid, number)
        before = read_report(run)
        send(pidfd, number)
        if no_wait:
            note(f"run {run.id} was asked for checkpoints")
            return 0
        report = _wait(run, pidfd, before, timeout_s, ends=not go_on)
    finally:
        os.close(pidfd)
    return _print_result(run, report, go_on=go_on)


def _wait_until_heard(run: RunDir, pid: int, number: int) -> None:
    """Wait until the launcher has its signal handlers: before, the signal would kill it."""
    until = time.monotonic() + _YOUNG_S
    while not _hears(pid, number):
        if time.monotonic() > until:
            raise UsageError(
                f"run {run.id} was started by a version of rscoop that can't be asked for checkpoints; "
                f"`rscoop cancel {run.id}` stops it, and what it has computed is kept"
            )
        time.sleep(_POLL_S)


def _hears(pid: int, number: int) -> bool:
    """Return whether a process catches a signal, or has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text("utf-8", "replace").splitlines()
    except OSError:
        return True
    caught = next((line.split()[1] for line in lines if line.startswith("SigCgt:")), "0")
    return bool(int(caught, 16) >> (number - 1) & 1)


def _wait(
    run: RunDir, pidfd: int, before: HandoverReport, timeout_s: float, *, ends: bool
) -> HandoverReport:
    """Wait for the result; a request that was already running is joined.

    Raises:
        RunStoppedError: the run ended in another way, or it takes too long.
    """
    until = time.monotonic() + timeout_s
    while True:
        gone = bool(select.select([pidfd], [], [], _POLL_S)[0])
        report = read_report(run)
        new = report.ask > before.ask or not before.over
        if gone or (new and report.over and not ends):
            if not new:
                raise UsageError(f"run {run.id} has ended meanwhile; see `rscoop status {run.id}`")
            return report
        if time.monotonic() > until:
            raise UsageError(
                f"run {run.id} has not finished its checkpoints after {timeout_s:g} s and continues "
                f"with them: see `rscoop status {run.id}`"
            )


def _print_result(run: RunDir, report: HandoverReport, *, go_on: bool) -> int:
    resume = f"to continue: rscoop resume {run.id}"
    then = "it continues" if go_on else f"it has stopped; {resume}"
    if not report.whole and not report.left:
        note(f"run {run.id}: not every process answered in time; {then}")
        return RunStoppedError.exit_code
    if report.left:
        saved = (
            f"{report.saved} of {report.named} parents saved, {report.left} did not commit in time"
        )
        note(f"run {run.id}: {saved}; {then}")
        return RunStoppedError.exit_code
    if not report.named:
        note(f"run {run.id}: no checkpoint block is open, so there was nothing to save; {then}")
        return 0
    note(f"run {run.id}: {report.saved} of {report.named} parents saved; {then}")
    return 0
