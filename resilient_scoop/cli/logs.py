"""`rscoop logs`: print the output of the script and its tasks, or the logs of processes."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import click

from resilient_scoop.cli.base import SETTINGS, run_argument
from resilient_scoop.errors import UsageError
from resilient_scoop.processes.stderr import LOG as ERRORS_LOG
from resilient_scoop.processes.task_output import TaskLogs
from resilient_scoop.runs.display import Display
from resilient_scoop.runs.folder import RunDir
from resilient_scoop.runs.status import OutputTail, is_live, open_view

_POLL_S: Final = 0.2
_PAGE_BYTES: Final = 1 << 20
_Write = Callable[[bytes], None] | None


@click.command(
    context_settings=SETTINGS,
    epilog="""\b
Examples:
    rscoop logs > output.txt         the script's output; the rest on the terminal
    rscoop logs --tasks              the output of tasks
    rscoop logs evolve-7 --worker w3
    rscoop logs -f --all
""",
)
@run_argument
@click.option("--output", "output", is_flag=True, help="Only the script's standard output.")
@click.option("--errors", "errors", is_flag=True, help="Only the script's standard error.")
@click.option("--tasks", "tasks", is_flag=True, help="Only the output of tasks.")
@click.option(
    "--worker", "names", multiple=True, metavar="NAME", help="The log of a process: w1, broker."
)
@click.option("--all", "everything", is_flag=True, help="The logs of all processes.")
@click.option("-f", "--follow", is_flag=True, help="Continue until the run ends.")
def command(  # noqa: PLR0913 - one parameter per option
    *,
    run: RunDir,
    output: bool,
    errors: bool,
    tasks: bool,
    names: tuple[str, ...],
    everything: bool,
    follow: bool,
) -> None:
    """Print what RUN's script and tasks wrote.

    The script's standard output goes to standard output. Its standard error, and the output of tasks,
    go to standard error; each line of a task starts with its time and `[worker item function]`. With
    an option, only the selected output is printed, on standard output.
    """
    display = Display(sys.stdout, sys.stderr, run.id, tty=False, quiet=True)
    if sum((output, errors, tasks, bool(names or everything))) > 1:
        raise UsageError("choose one of --output, --errors, --tasks and --worker (or --all)")
    if names or everything:
        _print_logs(run, names, display, follow=follow)
        return
    alone = output or errors or tasks
    stream = _Streams(
        run,
        display,
        output=output or not alone,
        errors=display.output if errors else None if alone else display.error,
        tasks=display.output if tasks else None if alone else display.error,
    )
    stream.follow(live_too=follow)


class _Streams:
    """The output of the script and its tasks, and the target of each kind."""

    def __init__(
        self, run: RunDir, display: Display, *, output: bool, errors: _Write, tasks: _Write
    ) -> None:
        self._run = run
        self._display = display
        self._tail = OutputTail() if output else None
        self._errors, self._errors_read = errors, 0
        self._tasks, self._logs = tasks, TaskLogs(run.logs)

    def follow(self, *, live_too: bool) -> None:
        """Print what exists, and then, with `live_too`, new text until the run ends."""
        view = None
        while True:
            continues = live_too and is_live(self._run)
            if self._tail is not None:
                view = view or open_view(self._run)
                for piece in self._tail.pieces(view) if view else ():
                    self._display.output(piece)
            self._print_errors()
            if self._tasks is not None:
                for line in self._logs.new(rest=not continues):
                    self._tasks(line.whole)
            if not continues:
                break
            time.sleep(_POLL_S)
        if view is not None:
            view.close()

    def _print_errors(self) -> None:
        path = self._run.logs / ERRORS_LOG
        if self._errors is None or not path.exists():
            return
        with path.open("rb") as file:
            file.seek(self._errors_read)
            while data := file.read(_PAGE_BYTES):
                self._errors_read += len(data)
                self._errors(data)


@dataclass(slots=True)
class _Logs:
    """Log files and the read position in each; lines begin with the name if there are several."""

    folder: Path
    names: tuple[str, ...]
    read_bytes: dict[Path, int] = field(default_factory=dict)

    def files(self) -> list[Path]:
        found = sorted(self.folder.glob("*.log"))
        if not self.names:
            return found
        return [path for path in found if any(_is_of(path, name) for name in self.names)]

    def show(self, display: Display) -> None:
        files = self.files()
        for path in files:
            with path.open("rb") as file:
                file.seek(self.read_bytes.get(path, 0))
                data = file.read()
            self.read_bytes[path] = self.read_bytes.get(path, 0) + len(data)
            label = f"{path.stem}: ".encode() if len(files) > 1 else b""
            for line in data.splitlines(keepends=True):
                display.output(label + line)


def _is_of(path: Path, name: str) -> bool:
    """Return whether a log belongs to a process: `w1.log`, or `w1-2.log` after a restart."""
    return path.stem == name or path.stem.startswith((f"{name}-", f"{name}."))


def _print_logs(run: RunDir, names: tuple[str, ...], display: Display, *, follow: bool) -> None:
    logs = _Logs(run.logs, names)
    if not logs.files() and not (follow and is_live(run)):
        known = ", ".join(sorted(path.stem for path in run.logs.glob("*.log"))) or "none"
        wanted = " or ".join(names) or "any process"
        raise UsageError(f"run {run.id} has no log of {wanted}; it has: {known}")
    while True:
        live = is_live(run)
        logs.show(display)
        if not (follow and live):
            return
        time.sleep(_POLL_S)
