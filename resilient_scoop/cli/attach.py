"""`rscoop attach`: show the output and progress of a run, as if it had been started here."""

from __future__ import annotations

import sys
import time
from contextlib import suppress
from typing import Final

import click

from resilient_scoop.cli.base import SETTINGS, note, run_argument
from resilient_scoop.counts import counted
from resilient_scoop.ids import ROOT
from resilient_scoop.journal.view import JournalView
from resilient_scoop.processes.stderr import LOG as ERRORS_LOG
from resilient_scoop.runs.display import (
    Display,
    Rate,
    RemainingTime,
    RunProgress,
    steps,
)
from resilient_scoop.runs.executing import processes
from resilient_scoop.runs.folder import RunDir, RunInfo
from resilient_scoop.runs.status import (
    OutputTail,
    RunState,
    RunStatus,
    is_live,
    open_view,
    scan_status,
    state_of,
)

POLL_S: Final = 0.2
_STATUS_EVERY_S: Final = 1.0
_RESUMABLE_EXIT: Final = 75


@click.command(
    context_settings=SETTINGS,
    epilog="""\b
Examples:
    rscoop run --detach evolve.py; rscoop attach
    rscoop attach --no-output && echo it finished
""",
)
@run_argument
@click.option("--output/--no-output", default=True, help="Show the script's output.  [default: on]")
@click.option("-q", "--quiet", is_flag=True, help="Show no progress.")
def command(*, run: RunDir, output: bool, quiet: bool) -> int:
    """Show the output and progress of RUN until it ends.

    The exit code is that of the run (75 if it stopped and can be resumed), so this command can also
    be used to wait for a run. Ctrl-C ends this command, not the run. If the run has ended, its
    recorded output is printed.
    """
    info = run.load()
    display = Display(sys.stdout, sys.stderr, run.id, sys.stderr.isatty(), quiet=quiet)
    watch = _Watch(run, info, display, output=output)
    try:
        watch.follow()
    except KeyboardInterrupt:
        display.close()
        note(f"run {run.id} continues; to watch it again: rscoop attach {run.id}")
        raise
    display.close()
    return _verdict(run, watch.status)


class _Watch:
    """Watches a run by reading its journal several times per second."""

    def __init__(self, run: RunDir, info: RunInfo, display: Display, *, output: bool) -> None:
        self._run = run
        self._info = info
        self._display = display
        self._tail = OutputTail() if output else None
        self._rate, self._course = Rate(), RemainingTime()
        holder = run.holder()
        self._began = holder.started_at if holder else time.time()  # noqa: TID251 - for display
        self._counted_at = float("-inf")
        self._errors_read = 0
        self._took_s = 0.0
        self.status = RunStatus()

    def follow(self) -> None:
        view: JournalView | None = None
        try:
            while True:
                live = is_live(self._run)  # checked before reading, so that nothing is missed
                view = view or open_view(self._run)
                if view is not None:
                    self._look(view, last=not live)
                if not live:
                    return
                time.sleep(POLL_S)
        finally:
            if view is not None:
                view.close()

    def _look(self, view: JournalView, *, last: bool) -> None:
        if self._tail is not None:
            for piece in self._tail.pieces(view):
                self._display.output(piece)
            self._show_errors()
        now = time.monotonic()
        # Counting reads the whole log: a big one must not occupy a core.
        if last or now - self._counted_at >= max(_STATUS_EVERY_S, 20 * self._took_s):
            self.status = scan_status(view, self._info.workers)
            self._counted_at = time.monotonic()
            self._took_s = self._counted_at - now
            if not last:
                self._display.progress(self._progress(now))

    def _show_errors(self) -> None:
        with suppress(FileNotFoundError), (self._run.logs / ERRORS_LOG).open("rb") as file:
            file.seek(self._errors_read)
            data = file.read()
            self._errors_read += len(data)
            self._display.error(data)

    def _progress(self, now: float) -> RunProgress:
        status = self.status
        rate = self._rate.add(now, status.done)
        batch = status.batches[0] if status.batches else None
        total = batch.total if batch and batch.whole else None
        name = f"{batch.path} {batch.name}" if batch else ""
        script = next((each for each in status.items if each.path == ROOT), None)
        return RunProgress(
            elapsed_s=float(int(time.time() - self._began)),  # noqa: TID251 - ages are for display
            label=f"{script.label or 'script'} {steps(script.done, script.total)}"
            if script
            else "",
            share=script.done / script.total if script and script.total else None,
            done=status.done,
            running=sum(
                bool(each.path) and each.name != "origin"
                for each in processes(self._run.key(self._info))
            ),
            workers=status.workers,
            crashes=status.crashes,
            resubmitted=status.resubmitted,
            rate_per_s=rate,
            batch=name,
            batch_done=batch.done if batch else 0,
            batch_total=total,
            batch_eta_s=self._course.eta_s(
                now, name, batch.done / total if batch and total else None
            ),
        )


def _verdict(run: RunDir, status: RunStatus) -> int:
    state = state_of(run, status.ended)
    if state is RunState.STOPPED or status.ended is None:
        note(f"run {run.id} stopped before its end; to continue: rscoop resume {run.id}")
        return _RESUMABLE_EXIT
    failed = f", {status.failed} of them failed" if status.failed else ""
    note(
        f"run {run.id} {state}: {counted(status.done, 'result')}{failed}; more: rscoop status {run.id}"
    )
    return status.ended.code
