"""Real runs for tests: scripts started as a user starts them, in a separate folder.

Every process of a test inherits the test's state folder in its environment, so that leftovers of a
run can be found, whatever their command line is.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from resilient_scoop.errors import RscoopError
from resilient_scoop.runs.folder import RunDir

RSCOOP: Final = [sys.executable, "-m", "resilient_scoop"]
TIMEOUT_S: Final = 30.0
LEFT_S: Final = 3.0
"""How long the processes of a run may take to be gone after its launcher."""


@dataclass(frozen=True)
class Done:
    """A command that has ended."""

    code: int
    out: str
    err: str

    def __str__(self) -> str:
        return f"exit {self.code}\n--- stdout\n{self.out[-4000:]}\n--- stderr\n{self.err[-4000:]}"

    def expect(self, code: int = 0) -> str:
        """Assert the exit code; return the standard output."""
        assert self.code == code, str(self)
        return self.out


@dataclass
class Place:
    """A folder with scripts, and the state folder of the runs that are started in it."""

    folder: Path
    state: Path
    environ: dict[str, str] = field(default_factory=dict)

    def write(self, text: str, name: str = "script.py") -> Path:
        """Write a script; its text may be indented."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
        return path

    def env(self) -> dict[str, str]:
        """Return the environment of the commands."""
        return {**os.environ, "RSCOOP_STATE_DIR": str(self.state), **self.environ}

    def start(self, *args: str, pipe: bool = True, **more: Any) -> subprocess.Popen[str]:
        """Start `rscoop ARGS`."""
        stream = subprocess.PIPE if pipe else None
        settings: dict[str, Any] = {
            "stdin": subprocess.DEVNULL, "stdout": stream, "stderr": stream, "text": True,
            "cwd": self.folder, "env": self.env(), "start_new_session": True,
        }  # fmt: skip
        return subprocess.Popen([*RSCOOP, *args], **{**settings, **more})

    def rscoop(
        self, *args: str, stdin: str = "", timeout_s: float = TIMEOUT_S, **more: Any
    ) -> Done:
        """Run `rscoop ARGS` to its end."""
        process = self.start(*args, **{"stdin": subprocess.PIPE, **more})
        return finish(process, stdin, timeout_s)

    def run(self, text: str, *args: str, workers: int = 2, **more: Any) -> Done:
        """Write a script, run it, and check that nothing of the run is left."""
        path = self.write(text)
        done = self.rscoop("run", "-q", "-n", str(workers), path.name, *args, **more)
        self.assert_nothing_left(str(done))
        return done

    def status(self, run: str = "last") -> dict[str, Any]:
        """Return what `rscoop status --json` says."""
        report: dict[str, Any] = json.loads(self.rscoop("status", run, "--json").expect())
        return report

    def runs(self) -> list[Path]:
        """Return the folders of all runs, oldest first."""
        return sorted(self.state.glob("runs/*"))

    def keys(self) -> list[str]:
        """Return the keys of the runs of this place; a damaged run has none, and no processes."""
        found = []
        for run in map(RunDir, self.runs()):
            with suppress(RscoopError):
                found.append(run.key(run.load()))
        return found

    def processes(self) -> dict[int, str]:
        """Return the processes that belong to this place: pid -> command line."""
        marks = [os.fsencode(each) for each in (str(self.state), *self.keys())]
        found = {}
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                marked = (folder / "environ").read_bytes() + (folder / "cmdline").read_bytes()
                if (folder / "stat").read_text().rpartition(") ")[2][0] == "Z":
                    continue
                words = (
                    (folder / "cmdline")
                    .read_bytes()
                    .replace(b"\0", b" ")
                    .decode("utf-8", "replace")
                )
            except OSError:
                continue  # it has just ended
            if any(mark in marked for mark in marks) and int(folder.name) != os.getpid():
                found[int(folder.name)] = words
        return found

    def assert_nothing_left(self, after: str = "") -> None:
        """Assert that no process, socket or shared memory of a run is left."""
        wait_until(
            lambda: not self.processes(), LEFT_S, lambda: f"left: {self.processes()} {after}"
        )
        for run in self.runs():
            assert not (run / "sock").exists(), f"{run / 'sock'} is left"
            assert not list(Path("/tmp").glob(f"*{run.name}*")), f"/tmp has files of {run.name}"


def finish(
    process: subprocess.Popen[str], stdin: str | None = None, timeout_s: float = TIMEOUT_S
) -> Done:
    """Wait for a command's end; one that does not end is killed and fails the test."""
    try:
        out, err = process.communicate(stdin or None, timeout=timeout_s)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        raise AssertionError(f"no end after {timeout_s} s\n{Done(-9, out, err)}") from None
    return Done(process.returncode, out or "", err or "")


def ledger(place: Place, name: str = "ledger") -> list[str]:
    """Return the lines that a script and its tasks have written to a file."""
    path = place.folder / name
    return path.read_text().split("\n")[:-1] if path.exists() else []


def wait_until(
    holds: Callable[[], bool], timeout_s: float = 10.0, say: Callable[[], str] | None = None
) -> None:
    """Wait until a condition holds; otherwise fail the test with the text that `say` returns."""
    until = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < until, say() if say else f"not within {timeout_s} s"
        time.sleep(0.02)
