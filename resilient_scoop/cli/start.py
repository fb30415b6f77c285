"""Start the launcher of a run, in this process or in a new one (`--detach`)."""

from __future__ import annotations

import os
import select
import sys
from typing import TYPE_CHECKING, Final

import click

from resilient_scoop.cli.base import note
from resilient_scoop.errors import RscoopError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from resilient_scoop.processes.options import RunOptions
    from resilient_scoop.runs.decisions import Decision
    from resilient_scoop.runs.folder import RunDir

_POLL_S: Final = 0.02
_LOG: Final = "launcher.log"


def start(run: RunDir, options: RunOptions, decisions: Sequence[Decision] = ()) -> int:
    """Launch the run and return its exit code; if detached, return 0 as soon as it runs.

    `decisions` are new ones about changed code, to be kept with the run.
    """
    if options.detach:
        return _detached(run, options, decisions)
    return _launch(run, options, decisions)


def _launch(run: RunDir, options: RunOptions, decisions: Sequence[Decision]) -> int:
    from resilient_scoop.processes.launcher.supervisor import launch

    return launch(run, options, decisions)


def _detached(run: RunDir, options: RunOptions, decisions: Sequence[Decision]) -> int:
    """Fork twice, so that the launcher has no parent process here and no terminal.

    The grandchild continues as the command; its standard error is the log.
    """
    verdict, telling = os.pipe()  # closes when the launcher ends in any way
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child:
        os.close(telling)
        os.waitpid(child, 0)
        return _await_hold(run, verdict)
    os.close(verdict)
    os.setsid()
    if os.fork():
        os._exit(0)
    _redirect(run)
    try:
        code = _launch(run, options, decisions)
    except RscoopError as error:
        os.write(telling, b"%d" % error.exit_code)
        raise
    os.write(telling, b"%d" % code)
    return code


def _redirect(run: RunDir) -> None:
    log = os.open(run.logs / _LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    for source, target in ((null, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    os.close(log)
    os.close(null)


def _await_hold(run: RunDir, verdict: int) -> int:
    """Return 0 once the launcher holds the run, or its exit code if it ended before."""
    while not run.is_held():
        if select.select([verdict], [], [], _POLL_S)[0]:
            text = os.read(verdict, 16)
            click.echo(run.id)
            return _ended(run, int(text or b"1"))
    click.echo(run.id)
    note(
        f"run {run.id} runs in the background; to watch it: rscoop attach {run.id}; "
        f"to stop it: rscoop cancel {run.id}"
    )
    return 0


def _ended(run: RunDir, code: int) -> int:
    if code == 0:
        note(f"run {run.id} has already ended; its output: rscoop logs {run.id}")
        return 0
    log = run.logs / _LOG
    last = log.read_text("utf-8", "replace").strip().splitlines()[-1:] or ["it wrote nothing"]
    note(f"run {run.id} ended at once with exit code {code}: {last[0]}; see {log}")
    return code
