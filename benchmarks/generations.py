"""What it costs to resume a long run of tiny generations, with a checkpoint and without.

The run is killed, all processes at once with SIGKILL, when its last generation is done; then it is
resumed. The figures are the time from `rscoop resume` to the first new item, the size of the
journal, the speed of the replay from the script's first line (`replayed_per_s`), the same speed
with all that a resume does before the replay (`resumed_per_s`: the checks of the journal, the
broker's recovery, the start of processes), and whether the result is that of a run without a kill.

    python -m benchmarks.generations --generations 100000 --folder /var/tmp

Each part takes minutes; `--kinds undisturbed` alone prints the result, to be given to the others, one at
a time, with `--expect`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
_RSCOOP = [sys.executable, "-m", "resilient_scoop"]
_SEED = "5"
_LIMIT_S = 1800.0
_ITEMS = 2  # of a generation's calls


class MeasureError(Exception):
    """A run did not do what is measured."""


class Case:
    """One kind of script in a folder and a state directory of its own."""

    def __init__(self, folder: Path, kind: str, count: int) -> None:
        self.folder, self.kind, self.count = folder, kind, count
        folder.mkdir()
        self._state = folder / "state"
        self._env = {
            **os.environ, "RSCOOP_STATE_DIR": str(self._state),
            "PYTHONPATH": os.pathsep.join([str(HERE.parent), os.environ.get("PYTHONPATH", "")]),
        }  # fmt: skip

    def start(self, *args: str) -> subprocess.Popen[str]:
        """Start `rscoop ARGS`."""
        return subprocess.Popen(
            [*_RSCOOP, *args], env=self._env, cwd=self.folder, stdout=subprocess.PIPE, text=True
        )

    def run(self) -> subprocess.Popen[str]:
        """Start the script from the beginning."""
        script = [str(HERE / "tiny.py"), str(self.folder), str(self.count), self.kind]
        return self.start("run", "-q", "-n", "2", "--seed", _SEED, *script)

    def until(self, name: str, process: subprocess.Popen[str]) -> float:
        """Wait until the script has made a file; return the moment."""
        until = time.monotonic() + _LIMIT_S
        while not (self.folder / name).exists():
            if process.poll() is not None or time.monotonic() > until:
                raise MeasureError(f"{self.kind}: there is no {name} ({process.poll()})")
            time.sleep(0.002)
        return time.monotonic()

    def moment(self, name: str) -> float:
        """Return the modification time of a file that the script made, in seconds."""
        return (self.folder / name).stat().st_mtime

    def kill_all(self) -> None:
        """Kill all processes of the run at once."""
        while pids := self._pids():
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.01)

    def _pids(self) -> list[int]:
        mark, found = f"RSCOOP_STATE_DIR={self._state}".encode(), []
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                ended = (folder / "stat").read_text().rpartition(") ")[2][0] == "Z"
                if not ended and mark in (folder / "environ").read_bytes().split(b"\0"):
                    found.append(int(folder.name))
        return found

    def journal_mb(self) -> float:
        """Return the disk space of the journal."""
        files = [path.stat() for path in self._state.glob("runs/*/journal/**/*")]
        return sum(each.st_blocks for each in files) * 512 / 1e6


def undisturbed(folder: Path, count: int) -> str:
    """Return what a run without a kill prints."""
    case = Case(folder, "plain", count)
    (folder / "go").touch()
    output, _ = case.run().communicate(timeout=_LIMIT_S)
    return output.strip()


def measure(folder: Path, kind: str, count: int, expected: str) -> dict[str, float | bool]:
    """Return the figures of one kind."""
    case = Case(folder, kind, count)
    began = time.monotonic()
    process = case.run()
    try:
        took_s = case.until("journaled", process) - began
        case.kill_all()
        process.communicate()
        size_mb = case.journal_mb()
        (folder / "go").touch()
        began = time.monotonic()
        process = case.start("resume", "-q", "last")
        back_s = case.until("stamps", process) - began
        replay_s = case.moment("journaled") - case.moment("began")
        output, _ = process.communicate(timeout=_LIMIT_S)
    finally:
        case.kill_all()
    measured: dict[str, float | bool] = {
        "generations": count, "first_life_s": round(took_s, 1), "back_s": round(back_s, 2),
        "journal_mb": round(size_mb, 1), "journal_after_mb": round(case.journal_mb(), 1),
        "same": output.strip() == expected,
    }  # fmt: skip
    if kind == "plain":
        measured["replayed_per_s"] = round(_ITEMS * count / replay_s)
        measured["resumed_per_s"] = round(_ITEMS * count / back_s)
    return measured


def main() -> int:
    """Measure and print a line of JSON for each kind; return 1 if a result differs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--generations", type=int, default=100_000)
    parser.add_argument("--kinds", default="undisturbed,durable,plain")
    parser.add_argument("--expect", default="", help="what an undisturbed run printed")
    parser.add_argument("--folder", type=Path, default=None, help="on the disk to be measured")
    given = parser.parse_args()
    home = Path(tempfile.mkdtemp(prefix="rscoop-generations-", dir=given.folder))
    same, expected = True, given.expect
    try:
        for kind in given.kinds.split(","):
            if kind == "undisturbed":
                expected = undisturbed(home / kind, given.generations)
                print(kind, expected, flush=True)
                continue
            measured = measure(home / kind, kind, given.generations, expected)
            same = same and bool(measured["same"])
            print(kind, json.dumps(measured), flush=True)
    finally:
        shutil.rmtree(home, ignore_errors=True)
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
