"""Make the golden journals of this format version: real runs, packed as their folders are.

    python -m tests.golden.make tests/golden [KIND ...]

`format-N-finished.tar.gz` is a run that came to its end; `format-N-killed.tar.gz` one whose processes
were all killed with SIGKILL in the middle of its last map, its data file as the kill left it;
`format-N-checkpointed.tar.gz` one with checkpoints, killed in the middle of a generation;
`format-N-deap.tar.gz` one whose pickles name modules of the runtime as they were then. Each has a
`.json` beside it: what the run had printed. They hold output, constants, an order of completion, a
failure, blobs, files of large results and states, and what ended parents left.

Make them once per format version, right before it is released, and never again: that later versions
open them is what they are for. A new kind of record gets a journal of its own.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

from resilient_scoop.ids import ROOT
from resilient_scoop.journal.place import FORMAT

KINDS = {
    "finished": ("script.py", ""),
    "killed": ("script.py", "[0, 0, 1"),
    "checkpointed": ("script_checkpointed.py", "half"),
    "deap": ("script_deap.py", "first"),
}
"""Of each the script, and how the line begins after which it is killed."""
HERE = Path(__file__).parent
SEED = 11
_RSCOOP = [sys.executable, "-m", "resilient_scoop"]
_LEAVES_S = 10.0


def make(kind: str, folder: Path) -> None:
    """Run the script to its end, or to where it is killed, and pack the run's folder."""
    script, last_line = KINDS[kind]
    with tempfile.TemporaryDirectory(dir="/var/tmp") as name:
        place = Path(name)
        env = {**os.environ, "RSCOOP_STATE_DIR": str(place / "state")}
        if not last_line:
            (place / "go").touch()
        command = [*_RSCOOP, "run", "-q", "-n", "2", "--seed", str(SEED), str(HERE / script)]
        process = subprocess.Popen(
            [*command, str(place / "go")], env=env, cwd=HERE,
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert process.stdout is not None
        said = ""
        for line in process.stdout:
            said += line
            if last_line and line.startswith(last_line):
                break
        if last_line:
            time.sleep(1.0)  # half of the last map is done by then
            _kill_all(place / "state")
        process.wait()
        (run,) = (place / "state" / "runs").iterdir()
        _pack(run, folder / f"format-{FORMAT}-{kind}.tar.gz")
        told = {
            "run": run.name,
            "script": script,
            "printed": said,
            "root": ROOT,
            "python": sys.version.split()[0],
        }
        text = json.dumps(told, indent=2) + "\n"
        (folder / f"format-{FORMAT}-{kind}.json").write_text(text)


def _kill_all(state: Path) -> None:
    until = time.monotonic() + _LEAVES_S
    while pids := _processes(state):
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        assert time.monotonic() < until, f"{pids} do not end"
        time.sleep(0.05)


def _processes(state: Path) -> list[int]:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            told = (folder / "environ").read_bytes()
            ended = (folder / "stat").read_text().rpartition(") ")[2][0] == "Z"
        except OSError:
            continue
        if str(state).encode() in told and not ended and int(folder.name) != os.getpid():
            found.append(int(folder.name))
    return found


def _pack(run: Path, target: Path) -> None:
    keep = ("run.json", "shown", "journal", "payloads", "checkpoints")
    with tarfile.open(target, "w:gz", compresslevel=9) as tar:
        for name in keep:
            if (run / name).exists():
                tar.add(run / name, arcname=name)


if __name__ == "__main__":
    for each in sys.argv[2:] or KINDS:
        make(each, Path(sys.argv[1]))
