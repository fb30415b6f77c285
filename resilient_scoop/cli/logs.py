"""`rscoop logs`: what the script wrote, or what the run's processes say."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import click

from resilient_scoop.cli.base import SETTINGS, run_argument
from resilient_scoop.errors import UsageError
from resilient_scoop.runtime.display import Display
from resilient_scoop.runtime.figures import OutputTail, is_live, open_view
from resilient_scoop.runtime.rundir import RunDir

_POLL_S: Final = 0.2


@click.command(
    context_settings=SETTINGS,
    epilog="""\b
Examples:
    rscoop logs last > output.txt
    rscoop logs last --worker w3
    rscoop logs -f last --all
""",
)
@run_argument
@click.option("--output", "output", is_flag=True, help="The script's output.  [the default]")
@click.option(
    "--worker", "names", multiple=True, metavar="NAME", help="The log of a process: w1, broker."
)
@click.option("--all", "everything", is_flag=True, help="The logs of all processes.")
@click.option("-f", "--follow", is_flag=True, help="Go on until the run ends.")
def command(
    *, run: RunDir, output: bool, names: tuple[str, ...], everything: bool, follow: bool
) -> None:
    """Print the recorded standard output of RUN's script, or its processes' logs."""
    display = Display(sys.stdout, sys.stderr, run.id, tty=False, quiet=True)
    if names or everything:
        if output:
            raise UsageError("--output and --worker are two things; ask for one of them")
        _print_logs(run, names, display, follow=follow)
    else:
        _print_output(run, display, follow=follow)


def _print_output(run: RunDir, display: Display, *, follow: bool) -> None:
    tail = OutputTail()
    view = None
    while True:
        live = is_live(run)
        view = view or open_view(run)
        if view is not None:
            for piece in tail.pieces(view):
                display.output(piece)
        if not (follow and live):
            break
        time.sleep(_POLL_S)
    if view is not None:
        view.close()


@dataclass(slots=True)
class _Logs:
    """Log files and how far each was read; names stand before lines when there are several."""

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
    """Tell whether a log is that of a process: `w1.log`, or `w1-2.log` of its second life."""
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
