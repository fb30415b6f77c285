"""Start the launcher of a run, in this process or in a new one (`--detach`)."""

from __future__ import annotations

import os
import select
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import click

from resilient_scoop.cli.base import note
from resilient_scoop.errors import RscoopError
from resilient_scoop.runs.decisions import Decision
from resilient_scoop.runs.folder import RunDir

if TYPE_CHECKING:
    from resilient_scoop.processes.launcher.stopping import Limit

_POLL_S: Final = 0.02
_LOG: Final = "launcher.log"


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """How a run is started or resumed, from the command line."""

    workers: int
    resume: bool = False
    reuse_changed: tuple[str, ...] = ()
    recompute_changed: tuple[str, ...] = ()
    decisions: tuple[Decision, ...] = ()  # new ones, to be kept with the run
    retry_failed: bool = False
    end_of_input: bool = False
    strict: bool = False
    quiet: bool = False
    detach: bool = False
    always_replay: bool = False
    audit: bool = False
    task_output: bool = False
    limit: Limit | None = None


def start(run: RunDir, how: Start) -> int:
    """Launch the run and return its exit code; if detached, return 0 as soon as it runs."""
    if how.detach:
        return _detached(run, how)
    return _launch(run, how)


def _launch(run: RunDir, how: Start) -> int:
    from resilient_scoop.processes.launcher.supervisor import launch
    from resilient_scoop.processes.options import LaunchOptions

    return launch(
        run,
        LaunchOptions(
            workers=how.workers,
            resume=how.resume,
            reuse_changed=how.reuse_changed,
            recompute_changed=how.recompute_changed,
            decisions=how.decisions,
            retry_failed=how.retry_failed,
            end_of_input=how.end_of_input,
            strict=how.strict,
            quiet=how.quiet,
            display=not how.detach,
            always_replay=how.always_replay,
            audit=how.audit,
            task_output=how.task_output,
            limit=how.limit,
        ),
    )


def _detached(run: RunDir, how: Start) -> int:
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
        code = _launch(run, how)
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
