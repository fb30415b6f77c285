"""A log of what a lab makes, written before it is made, so that it can be removed if the program is killed.

Processes of a lab end with the program that made it (the kernel kills them). Folders and control
groups outlive the program, and so do processes that missed the kernel's signal.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from chaos.lab import namespaces

ROOT = Path("/var/tmp")
PREFIX = "rscoop-lab-"
_FILE = "undo.jsonl"
_GONE_S = 5.0
_POLL_S = 0.01


class UndoLog:
    """The list of what a lab has made, in its folder."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / _FILE
        self._note("program", [os.getpid(), namespaces.started_at(os.getpid())])

    def process(self, pid: int) -> None:
        """Log a process that was started."""
        self._note("process", [pid, namespaces.started_at(pid)])

    def group(self, path: Path) -> None:
        """Log a control group that will be made."""
        self._note("group", [str(path), ""])

    def _note(self, kind: str, what: list[object]) -> None:
        with self.file.open("a") as file:
            file.write(json.dumps([kind, *what]) + "\n")


def undo(folder: Path) -> None:
    """Kill what a lab has started; remove its control groups and its folder."""
    made = entries(folder)
    alive = [(pid, at) for kind, pid, at in made if kind == "process" and _lives(pid, at)]
    for pid, _ in alive:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    groups = [Path(path) for kind, path, _ in reversed(made) if kind == "group"]
    for group in groups:  # a frozen process does not die
        with suppress(OSError):
            (group / "freezer.state").write_text("THAWED")
    until = time.monotonic() + _GONE_S
    while any(_lives(pid, at) for pid, at in alive) and time.monotonic() < until:
        time.sleep(_POLL_S)
    for group in groups:
        _remove_group(group, until)
    shutil.rmtree(folder, ignore_errors=True)


def clean() -> list[str]:
    """Undo every lab whose program has ended; return the folders of those labs."""
    found = []
    for folder in sorted(ROOT.glob(f"{PREFIX}*")):
        programs = [(pid, at) for kind, pid, at in entries(folder) if kind == "program"]
        if programs and not any(_lives(pid, at) for pid, at in programs):
            undo(folder)
            found.append(str(folder))
    return found


def _remove_group(group: Path, until: float) -> None:
    while group.exists():
        try:
            group.rmdir()
        except OSError:  # its last process may be ending
            if time.monotonic() > until:
                return
            time.sleep(_POLL_S)


def _lives(pid: int, started_at: str) -> bool:
    return namespaces.started_at(pid) == started_at and namespaces.state_of(pid) != "Z"


def entries(folder: Path) -> list[tuple[str, Any, str]]:
    """Return the entries of a lab: kind, process id or path, and when the process was started."""
    found = []
    with suppress(FileNotFoundError):
        for line in (folder / _FILE).read_text().splitlines():
            with suppress(ValueError):  # the last line may be incomplete
                kind, what, at = json.loads(line)
                found.append((kind, what, at))
    return found
