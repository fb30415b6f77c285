"""Reach a live run: find the process to ask, and send it a signal safely."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass

from resilient_scoop.errors import UsageError
from resilient_scoop.journal import writer_lock
from resilient_scoop.runs.folder import RunDir, boot_id, pid_started
from resilient_scoop.runs.status import is_live


@dataclass(frozen=True, slots=True)
class Reached:
    """A process of a live run."""

    pid: int
    role: str


def whom_to_ask(run: RunDir, command: str) -> Reached:
    """Return the launcher, or, if it was killed, its broker; `command` is that of the user.

    Raises:
        UsageError: it runs on another host, or there is no process to ask.
    """
    here = os.uname().nodename
    holder = run.holder()
    if holder is not None:
        _check_host(run, holder.host, here, command)
        if holder.boot != boot_id() or pid_started(holder.pid) != holder.pid_started:
            raise UsageError(
                f"run {run.id} is locked, but not by process {holder.pid}, which its lock file names; "
                f"see which process has it open: fuser {run.lock}"
            )
        return Reached(holder.pid, "launcher")
    broker = writer_lock.holder(run.journal)
    if broker is not None:
        _check_host(run, broker.host, here, command)
        return Reached(broker.pid, "broker")
    raise UsageError(f"run {run.id} is just starting or ending; try again")


def check_live(run: RunDir, command: str) -> None:
    """Raise UsageError unless the run is live on this host; `command` is that of the user."""
    if not is_live(run):
        raise UsageError(
            f"run {run.id} is not live: it has ended or was stopped (`rscoop status {run.id}` shows it); "
            f"to continue a stopped run: rscoop resume {run.id}"
        )
    whom_to_ask(run, command)


def _check_host(run: RunDir, host: str, here: str, command: str) -> None:
    if host != here:
        raise UsageError(
            f"run {run.id} runs on {host}; ask it there: ssh {host} rscoop {command} {run.id}"
        )


def open_process(pid: int) -> int | None:
    """Return a descriptor of a process; None if there is none any more."""
    try:
        return os.pidfd_open(pid)
    except ProcessLookupError:
        return None


def send(pidfd: int, number: int) -> None:
    """Send a signal by pidfd, which cannot reach another process with the same pid.

    Raises:
        UsageError: the process belongs to another user.
    """
    try:
        signal.pidfd_send_signal(pidfd, number)
    except ProcessLookupError:
        return
    except PermissionError as error:
        raise UsageError("the run belongs to another user; only they can do that") from error
