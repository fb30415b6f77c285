"""Runs `rscoop` as a user does, with its output in a file, and watches it from outside."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from chaos.processes import TOKEN
from chaos.workloads.ledger import VARIABLE
from resilient_scoop.runs.folder import RunDir

CHECKOUT = Path(__file__).parent.parent
RUN_SEED = 7
WORKERS = 2
_QUERY_S = 30.0
_POLL_S = 0.01


@dataclass(slots=True)
class Place:
    """The folders of one round, and the environment of all processes that are started in it."""

    root: Path
    token: str
    entering: list[str] = field(default_factory=list)  # put before each command line
    environ: dict[str, str] = field(init=False)

    def __post_init__(self) -> None:
        self.temporary.mkdir(parents=True)
        path = [str(CHECKOUT), os.environ.get("PYTHONPATH", "")]
        self.environ = {
            **os.environ,
            "RSCOOP_STATE_DIR": str(self.state),
            "TMPDIR": str(self.temporary),
            "PYTHONPATH": os.pathsep.join(each for each in path if each),
            "PYTHONFAULTHANDLER": "1",
            VARIABLE: str(self.root / "ledger"),
            TOKEN: self.token,
        }

    @property
    def state(self) -> Path:
        """The state folder."""
        return self.root / "state"

    @property
    def temporary(self) -> Path:
        """The folder for temporary files."""
        return self.root / "tmp"

    @property
    def out(self) -> Path:
        """Standard output of the run and of its resumes, one after the other."""
        return self.root / "out"

    @property
    def err(self) -> Path:
        """Standard error, likewise."""
        return self.root / "err"

    def run(self) -> Path | None:
        """Return the folder of the run, once there is one."""
        try:
            runs = [path for path in (self.state / "runs").iterdir() if path.name[0] != "."]
        except FileNotFoundError:
            return None
        return runs[0] if runs else None

    def run_key(self) -> str | None:
        """Return the key by which the processes of the run are recognized, once there is a run."""
        folder = self.run()
        if folder is None:
            return None
        run = RunDir(folder)
        return run.key(run.load())

    def output(self) -> bytes:
        """Return the standard output so far."""
        try:
            return self.out.read_bytes()
        except FileNotFoundError:
            return b""

    def output_bytes(self) -> int:
        """Return the number of bytes of standard output so far."""
        try:
            return self.out.stat().st_size
        except FileNotFoundError:
            return 0


def start(place: Place, arguments: list[str]) -> subprocess.Popen[bytes]:
    """Start an `rscoop` command; its output is appended to the round's files."""
    with place.out.open("ab") as out, place.err.open("ab") as err:
        return subprocess.Popen(
            [*place.entering, sys.executable, "-m", "resilient_scoop", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            env=place.environ,
            cwd=place.root,
        )


def run_arguments(script: Path) -> list[str]:
    """Return the command line of a new run."""
    return ["run", "-n", str(WORKERS), "--seed", str(RUN_SEED), str(script)]


def await_end(process: subprocess.Popen[bytes], until: float) -> int | None:
    """Return a process' exit code, or None if it has not ended by that time (monotonic)."""
    while time.monotonic() < until:
        code = process.poll()
        if code is not None:
            return code
        time.sleep(_POLL_S)
    return process.poll()


def ask(place: Place, *arguments: str) -> tuple[int, str]:
    """Run an `rscoop` command that only reads; return its exit code and its output."""
    done = subprocess.run(
        [*place.entering, sys.executable, "-m", "resilient_scoop", *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env=place.environ,
        cwd=place.root,
        timeout=_QUERY_S,
        check=False,
    )
    return done.returncode, done.stdout + ("" if done.returncode == 0 else done.stderr)


def ask_json(place: Place, *arguments: str) -> Any:
    """Run a command with `--json`; return the parsed output, or the text if it is not JSON."""
    _, text = ask(place, *arguments, "--json")
    try:
        return json.loads(text)
    except ValueError:
        return {"problem": text}
