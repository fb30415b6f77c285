"""Runs whose processes are all killed at once and that are resumed, and the records of their journals."""

from __future__ import annotations

import os
import signal
import time

from resilient_scoop.core.events import Table
from resilient_scoop.journal.view import JournalView
from resilient_scoop.wire import messages as wire
from tests.integration.runs import Done, Place, wait_until


def kill_all(place: Place) -> None:
    """Kill every process of the run at once."""
    while pids := list(place.processes()):
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        time.sleep(0.01)


def killed_at(place: Place, text: str, seen: str, *args: str, workers: int = 2) -> str:
    """Start a script, kill everything when a file of this name appears; return what it wrote."""
    path = place.write(text)
    out = place.folder / "out"
    with out.open("ab") as file:
        command = ["run", "-q", "-n", str(workers), path.name, *args]
        process = place.start(*command, stdout=file, stderr=file)
        try:
            wait_until(lambda: (place.folder / seen).exists() or process.poll() is not None)
        finally:
            kill_all(place)
            process.wait()
    return out.read_text()


def resumed(place: Place, *args: str, **more: object) -> Done:
    """Resume the last run to its end."""
    done = place.rscoop("resume", "last", *args, **more)  # type: ignore[arg-type]
    place.assert_nothing_left()
    return done


def records(place: Place) -> list[wire.Logged]:
    """Return the records of the last run's log."""
    with JournalView.open(place.runs()[-1] / "journal") as view:
        return [wire.decode_logged(raw) for _, raw in view.scan(Table.LOG)]
