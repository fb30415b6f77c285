"""Each script of `scripts/` in four ways: plain, in a run, with a worker killed, with everything killed.

`python -m tests.integration.plugins` runs them all and prints the table of `docs/plugins.md`.
"""

from __future__ import annotations

import ast
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.integration.runs import Place, finish, ledger, wait_until

SCRIPTS: Final = Path(__file__).parent / "scripts"
PAUSE_S: Final = "0.02"
"""How long each call takes, so that there is time to kill something."""
KILL_AT: Final = 12
"""After how many calls something is killed."""
TIMEOUT_S: Final = 90.0

MODULES: Final = {"scikit-learn": "sklearn", "jmetalpy": "jmetal", "zeus-mcmc": "zeus"}
MODULES_MORE: Final = {"nautilus-sampler": "nautilus", "bayesian-optimization": "bayes_opt"}
ALWAYS_THERE: Final = ("deap", "pymoo", "joblib", "numpy")
"""Modules that the group `test` has."""
REAL: Final = ("deap_onemax", "futures_executor", "joblib_parallel", "pool_methods", "pymoo_runner")
"""Scripts that need nothing else, and are tried with the real tests."""


@dataclass(frozen=True)
class Script:
    """A script that gives a library one of our hooks."""

    path: Path

    @property
    def name(self) -> str:
        """Its file name, without the ending."""
        return self.path.stem

    @property
    def title(self) -> tuple[str, str]:
        """The library and the hook that it gets: the first line of the script."""
        doc = ast.get_docstring(ast.parse(self.path.read_text())) or ""
        library, _, hook = doc.splitlines()[0].partition(": ")
        return library, hook.rstrip(".")

    @property
    def is_installed(self) -> bool:
        """Whether its library is installed."""
        library = self.title[0]
        module = {**MODULES, **MODULES_MORE}.get(library, library)
        return importlib.util.find_spec(module) is not None


ALL: Final = [Script(path) for path in sorted(SCRIPTS.glob("*.py")) if path.name != "hooks.py"]


@dataclass
class Case:
    """A script in a folder of its own."""

    script: Script
    place: Place

    def __post_init__(self) -> None:
        for path in (self.script.path, SCRIPTS / "hooks.py"):
            shutil.copy(path, self.place.folder / path.name)
        self.place.environ |= {
            "PLUGIN_LEDGER": str(self.place.folder / "ledger"),
            "PLUGIN_PAUSE_S": PAUSE_S,
            "MPLCONFIGDIR": str(self.place.folder),
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
        }

    def plain(self) -> str:
        """Return what the script prints with Python's own map, in one process."""
        done = subprocess.run(
            [sys.executable, self.script.path.name],
            cwd=self.place.folder, env={**self.place.env(), "PLUGIN_WAY": "builtin"},
            capture_output=True, text=True, timeout=TIMEOUT_S, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-4000:]
        return done.stdout

    def start(self) -> subprocess.Popen[str]:
        """Start a run of the script on two workers."""
        return self.place.start("run", "-q", "-n", "2", self.script.path.name)

    @property
    def calls(self) -> list[int]:
        """The worker of each call so far."""
        lines = [line.split() for line in ledger(self.place)]
        return [int(pid) for pid, is_script in lines if is_script == "False"]

    def run(self) -> tuple[str, set[int]]:
        """Return what the script prints in a run, and the workers of its calls."""
        process = self.start()
        out = finish(process, timeout_s=TIMEOUT_S).expect()
        self.place.assert_nothing_left()
        return out, set(self.calls)

    def kill_worker(self) -> str:
        """Return what the script prints if a worker that computes is killed."""
        process = self.start()
        self._await_calls(process)
        victim = self.calls[-1]
        os.kill(victim, signal.SIGKILL)
        done = finish(process, timeout_s=TIMEOUT_S)
        self.place.assert_nothing_left()
        assert self.place.status()["crashes"] >= 1, "no process was killed in time"
        return done.expect()

    def kill_everything(self) -> tuple[str, int]:
        """Return what is printed if all is killed and resumed, and the calls before the kill."""
        process = self.start()
        self._await_calls(process)
        while found := self.place.processes():
            for pid in found:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            time.sleep(0.02)
        printed = finish(process).out
        before = len(self.calls)
        done = self.place.rscoop("resume", "-q", "last", timeout_s=TIMEOUT_S)
        self.place.assert_nothing_left()
        return printed + done.expect(), before

    def _await_calls(self, process: subprocess.Popen[str]) -> None:
        """Wait until some calls were made."""
        wait_until(
            lambda: len(self.calls) >= KILL_AT or process.poll() is not None,
            30.0,
            lambda: f"{len(self.calls)} calls after 30 s",
        )
        assert process.poll() is None, f"it ended before it was killed\n{finish(process)}"
