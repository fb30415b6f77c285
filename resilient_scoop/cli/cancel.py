"""`rscoop cancel`: stop a run in order, or at once; what it has computed is kept."""

from __future__ import annotations

import os
import select
import signal
import time
from dataclasses import dataclass
from typing import Final

import click

from resilient_scoop.adapters import journal_lock
from resilient_scoop.cli.base import DURATION, SETTINGS, note, run_argument
from resilient_scoop.errors import RunBusyError, UsageError
from resilient_scoop.runtime.figures import is_live
from resilient_scoop.runtime.rundir import RunDir, boot_id, pid_started

_LINGER_S: Final = 5.0
"""The broker ends after its launcher; it has that long to let go of the journal."""
_POLL_S: Final = 0.05


@dataclass(frozen=True, slots=True)
class _Process:
    pid: int
    role: str


@click.command(
    context_settings=SETTINGS,
    epilog="""\b
Examples:
    rscoop cancel last
    rscoop cancel --now evolve-7        do not let it finish what it is computing
    rscoop cancel --timeout 2m last
""",
)
@run_argument
@click.option("--now", is_flag=True, help="End it at once, as a second Ctrl-C does.")
@click.option(
    "--timeout", "timeout_s", type=DURATION, default="30s", metavar="DURATION",
    help="How long to wait for its end.  [default: 30s]",
)  # fmt: skip
def command(*, run: RunDir, now: bool, timeout_s: float) -> None:
    """Stop RUN; it can be resumed. Waits until nothing of it is left on this host."""
    if not is_live(run):
        note(f"run {run.id} is not live; nothing to stop")
        return
    process = _process(run)
    pidfd = _open(process.pid)
    if pidfd is not None:
        try:
            _ask(pidfd, now=now)
            if not select.select([pidfd], [], [], timeout_s)[0]:
                raise RunBusyError(str(run.path), process.pid, os.uname().nodename)
        finally:
            os.close(pidfd)
    until = time.monotonic() + _LINGER_S
    while is_live(run) and time.monotonic() < until:
        time.sleep(_POLL_S)
    if is_live(run):
        remaining = _process(run)
        raise RunBusyError(str(run.path), remaining.pid, os.uname().nodename)
    note(f"run {run.id} is stopped; go on with `rscoop resume {run.id}`")


def _process(run: RunDir) -> _Process:
    """Return whom to ask: the launcher, or, where it was killed, the broker it left."""
    here = os.uname().nodename
    holder = run.holder()
    if holder is not None:
        _check_host(run, holder.host, here)
        if holder.boot != boot_id() or pid_started(holder.pid) != holder.pid_started:
            raise UsageError(
                f"run {run.id} is held, but not by process {holder.pid} that says it holds it; "
                f"see who has {run.lock} open: fuser {run.lock}"
            )
        return _Process(holder.pid, "launcher")
    broker = journal_lock.holder(run.journal)
    if broker is not None:
        _check_host(run, broker.host, here)
        return _Process(broker.pid, "broker")
    raise UsageError(f"run {run.id} is just starting or ending; try again")


def _check_host(run: RunDir, host: str, here: str) -> None:
    if host != here:
        raise UsageError(f"run {run.id} lives on {host}; cancel it there: ssh {host} rscoop cancel")


def _open(pid: int) -> int | None:
    try:
        return os.pidfd_open(pid)
    except ProcessLookupError:
        return None


def _ask(pidfd: int, *, now: bool) -> None:
    """Send SIGTERM by pidfd, which cannot meet a stranger that was given the same pid."""
    try:
        signal.pidfd_send_signal(pidfd, signal.SIGTERM)
        if now:
            select.select([pidfd], [], [], _POLL_S)
            signal.pidfd_send_signal(pidfd, signal.SIGTERM)
    except ProcessLookupError:
        return
    except PermissionError as error:
        raise UsageError("the run belongs to another user; only they can stop it") from error
