"""What checkpoints cost: `python -m benchmarks.checkpoints [--quick] [--only CASE]`, on two workers.

- how long a commit takes, until it is on disk and loaded back, for states of 1 KB, 1 MB and 100 MB
- what "auto" adds to a loop of generations of 200 items of 2 ms
- what 100,000 tiny generations leave in the journal, and how soon a resume computes something new
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.load import noop, spin
from resilient_scoop import checkpoint, futures

SIZES = {"1 KB": 1_000, "1 MB": 1_000_000, "100 MB": 100_000_000}
NEW_S = 60.0


def latencies(commits: int) -> dict[str, float]:
    """Return the median time of a commit in milliseconds, by the size of the state."""
    found = {}
    for name, size in SIZES.items():
        with checkpoint.durable(f"size {name}", data=bytearray(size), gen=0) as s:
            took = []
            for _ in range(max(3, commits // (1 + size // 1_000_000))):
                s.gen += 1
                s.data[s.gen % size] ^= 1
                began = time.perf_counter()
                s.commit()
                took.append(time.perf_counter() - began)
        found[f"commit of {name}, ms"] = 1e3 * statistics.median(took)
    return found


def loop(generations: int, *, saves: bool) -> float:
    """Return the seconds that a loop of generations takes."""
    began = time.perf_counter()
    with checkpoint.durable(f"saves {saves} {began}", pop=[0.0] * 200, gen=0) as s:
        for s.gen in range(generations):
            s.pop = list(futures.map(spin, [2.0] * 200))
            if saves:
                s.commit(every_s="auto")
    return time.perf_counter() - began


def overhead(generations: int, rounds: int) -> dict[str, float]:
    """Return how much "auto" adds in percent: medians of runs in turns."""
    with_s, without_s = [], []
    for _ in range(rounds):
        with_s.append(loop(generations, saves=True))
        without_s.append(loop(generations, saves=False))
    ratio = statistics.median(with_s) / statistics.median(without_s)
    return {'overhead of "auto", %': 100 * (ratio - 1)}


def many(generations: int, folder: Path) -> None:
    """Run tiny generations, then wait for the kill; after the resume, compute something new."""
    with checkpoint.durable(total=0, gen=0) as s:
        while s.gen < generations:
            s.total += sum(futures.map(int, [s.gen, s.gen + 1]))
            s.gen += 1
            s.commit(every_s="auto")
    if not (folder / "killed").exists():
        (folder / "ready").touch()
        time.sleep(3600)
    list(futures.map(noop, range(2)))
    (folder / "new").write_text(json.dumps({"total": s.total, "at": time.time()}))  # noqa: TID251 - of two processes


def inside(case: str, size: int, folder: Path) -> None:
    """Run the script of a case."""
    measured: dict[str, float] = {}
    if case == "latency":
        measured = latencies(size)
    elif case == "overhead":
        measured = overhead(size, 3)
    else:
        many(size, folder)
    print("FIGURES", json.dumps(measured), flush=True)


def start(folder: Path, *command: str, **more: Any) -> subprocess.Popen[str]:
    """Start `rscoop`."""
    env = {**os.environ, "RSCOOP_STATE_DIR": str(folder / "state")}
    return subprocess.Popen(
        [sys.executable, "-m", "resilient_scoop", *command],
        env=env, text=True, stdout=subprocess.PIPE, start_new_session=True, **more,
    )  # fmt: skip


def take(case: str, size: int, folder: Path) -> dict[str, float]:
    """Take the figures of a case."""
    script = ["-m", "benchmarks.checkpoints", "--inside", case, str(size), str(folder)]
    process = start(folder, "run", "-q", "-n", "2", *script)
    out, _ = process.communicate()
    line = next(line for line in out.splitlines() if line.startswith("FIGURES"))
    measured: dict[str, float] = json.loads(line.partition(" ")[2])
    return measured


def long_run(generations: int, folder: Path) -> dict[str, float]:
    """Kill a run at the end of many generations, and resume it."""
    script = ["-m", "benchmarks.checkpoints", "--inside", "many", str(generations), str(folder)]
    began = time.time()  # noqa: TID251 - of two processes
    process = start(folder, "run", "-q", "-n", "2", *script)
    while not (folder / "ready").exists():
        assert process.poll() is None, "the run has ended"
        time.sleep(0.05)
    ran_s = time.time() - began  # noqa: TID251 - of two processes
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    (folder / "killed").touch()
    time.sleep(1.0)
    stats = start(folder, "journal", "stats", "last", "--json").communicate()[0]
    began = time.time()  # noqa: TID251 - of two processes
    start(folder, "resume", "-q", "last").communicate(timeout=NEW_S)
    answer = json.loads((folder / "new").read_text())
    assert answer["total"] == generations**2, answer
    journal = json.loads(stats)
    log = next(table for table in journal["tables"] if table["table"] == "log")
    return {
        "generations per s": generations / ran_s,
        "records in the log": log["records"],
        "journal, MB": journal["size_bytes"] / 1e6,
        "resume to new work, s": answer["at"] - began,
    }


def main() -> None:
    """Take all figures and print them."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.checkpoints", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the work")
    parser.add_argument(
        "--only", choices=("latency", "overhead", "many"), help="take the figures of one case"
    )
    parser.add_argument("--inside", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument(
        "--folder", type=Path, default=Path("/var/tmp"), help="on the disk that counts"
    )
    options = parser.parse_args()
    if options.inside:
        case, size, folder = options.inside
        inside(case, int(size), Path(folder))
        return
    part = 10 if options.quick else 1
    with tempfile.TemporaryDirectory(dir=options.folder, prefix="checkpoints-") as name:
        folder = Path(name)
        measured: dict[str, float] = {}
        if options.only in (None, "latency"):
            measured |= take("latency", 300 // part, folder)
        if options.only in (None, "overhead"):
            measured |= take("overhead", 100 // part, folder)
        if options.only in (None, "many"):
            measured |= long_run(100_000 // part, folder)
    for what, value in measured.items():
        print(f"{what:32} {value:12.2f}")


if __name__ == "__main__":
    main()
