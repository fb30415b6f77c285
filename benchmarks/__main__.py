"""`python -m benchmarks`: costs of this runtime and of its peers, measured in turns; see README.md."""

from __future__ import annotations

import argparse
import dataclasses
import datetime as dt
import os
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.goals import CASES, CUT_SHORT, LEFT_OUT, ROWS, WHOLE
from benchmarks.grids import OPEN
from benchmarks.outside import HERE, Bench, MeasureError, new_mark, notes, take
from benchmarks.report import Results

_QUICK = 0.1
_QUIET = 0.1
"""Share of the cores that others may have while the machine counts as quiet."""
_IN_MEMORY = {"tmpfs", "ramfs", "devtmpfs"}


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "--only", metavar="CASE,..", default=",".join(CASES), help="cases (default: %(default)s)"
    )
    parser.add_argument(
        "--peers", metavar="PEER,..", default=",".join(OPEN), help="default: %(default)s"
    )
    parser.add_argument("--rounds", type=int, default=3, help="default: %(default)s")
    parser.add_argument("--quick", action="store_true", help="one round of a tenth of the work")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    parser.add_argument(
        "--peer-python", metavar="FILE", default=sys.executable,
        help="interpreter that has the peers (default: this one)",
    )  # fmt: skip
    parser.add_argument(
        "--folder", type=Path, default=Path("/var/tmp"),
        help="where runs are kept, on the disk that counts (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--wait", type=float, default=0.0, metavar="SECONDS",
        help="before each measurement, wait so long at most for the machine to be quiet",
    )  # fmt: skip
    options = parser.parse_args()
    for given, known in ((options.only, CASES), (options.peers, tuple(OPEN))):
        unknown = [name for name in given.split(",") if name not in known]
        if unknown:
            parser.error(f"no such name: {', '.join(unknown)}; there are {', '.join(known)}")
    if filesystem_of(options.folder) in _IN_MEMORY:
        parser.error(f"{options.folder} is in memory: name a folder on a disk with --folder")
    return options


def filesystem_of(folder: Path) -> str:
    """Return the type of the file system that holds a folder."""
    place = folder.resolve()
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    holding = [(len(where), kind) for _, where, kind, *_ in mounts if place.is_relative_to(where)]
    return max(holding)[1]


def revision() -> str:
    """Return the commit that is measured, with a `+` if files differ from it; empty if there is none."""
    command = ["git", "describe", "--always", "--dirty=+", "--abbrev=10"]
    done = subprocess.run(command, cwd=HERE, capture_output=True, text=True, check=False)
    return done.stdout.strip()


@dataclass(frozen=True, slots=True)
class Load:
    """The CPU time that the machine and our child processes had used at one moment."""

    at: float
    busy_s: float
    ours_s: float

    @classmethod
    def now(cls) -> Load:
        """Return the present load. Time that the hypervisor took counts as used by others."""
        ticks = [int(word) for word in Path("/proc/stat").read_text().split("\n")[0].split()[1:9]]
        busy = (sum(ticks) - ticks[3] - ticks[4]) / os.sysconf("SC_CLK_TCK")
        children = resource.getrusage(resource.RUSAGE_CHILDREN)
        return cls(time.monotonic(), busy, children.ru_utime + children.ru_stime)

    @classmethod
    def quiet(cls, wait_s: float) -> Load:
        """Wait for a quarter of a second without other load, but at most `wait_s`; return the load."""
        until = time.monotonic() + wait_s
        last = cls.now()
        while last.at < until:
            time.sleep(0.25)
            now = cls.now()
            if now.others_since(last) < _QUIET:
                return now
            last = now
        return last

    def others_since(self, before: Load) -> float:
        """Return the share of all cores that others used."""
        took_s = max(1e-3, self.at - before.at) * (os.cpu_count() or 1)
        used_s = (self.busy_s - before.busy_s) - (self.ours_s - before.ours_s)
        return max(0.0, used_s / took_s)


def run(options: argparse.Namespace, bench: Bench, results: Results) -> list[str]:
    """Take all measurements, peers in turns; return the peers that are installed."""
    wanted = options.peers.split(",")
    peers = [peer for peer in wanted if bench.has(peer)]
    for peer in sorted(set(wanted) - set(peers)):
        print(f"{peer}: not installed in {bench.python(peer)}, left out")
    for number in range(1 if options.quick else options.rounds):
        for case in options.only.split(","):
            turn = number % len(peers)  # so each is the first in some round
            for peer in peers[turn:] + peers[:turn]:
                if peer not in LEFT_OUT.get(case, ()) and not (
                    peer != "ours" and case in ours_only()
                ):
                    one(bench, results, peer, case)
    return peers


def ours_only() -> set[str]:
    """Return the cases that only this runtime has."""
    return {row.case for row in ROWS} - {row.case for row in ROWS if not row.only_ours}


def one(bench: Bench, results: Results, peer: str, case: str) -> None:
    """Take one measurement; report a failed one, and put it into the table."""
    before = Load.quiet(bench.wait_s)
    part = 1.0 if case in WHOLE else bench.part
    try:
        measured = take(dataclasses.replace(bench, part=part, mark=new_mark()), peer, case)
    except (MeasureError, OSError, ValueError) as error:
        last = bench.errors.read_text().strip().splitlines()[-1:] if bench.errors.exists() else []
        results.failures.append(
            f"{case} of {peer}: {error} {' '.join(last)} (kept in {bench.folder})"
        )
        print(results.failures[-1], file=sys.stderr)
        return
    others = Load.now().others_since(before)
    results.add(peer, case, measured)
    if peer == "ours" and case not in CUT_SHORT:
        results.notes += [f"{case}: {note}" for note in notes(bench)]
    results.others.setdefault(case, []).append(others)
    text = "  ".join(f"{name} {value:,.3f}" for name, value in measured.items())
    print(f"{case:<17}{peer:<8}{text}   (others {others:.0%})", file=sys.stderr, flush=True)


def main() -> int:
    """Measure and print the table; return 1 if a goal was missed or a measurement failed."""
    options = parse()
    home = Path(tempfile.mkdtemp(prefix="rscoop-bench-", dir=options.folder))
    part = _QUICK if options.quick else 1.0
    bench = Bench(home, options.peer_python, part, options.wait)
    results = Results(
        facts={
            "when": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
            "python": platform.python_version(),
            "kernel": platform.release(),
            "cores": str(os.cpu_count()),
            "filesystem": filesystem_of(home),
            "code": revision(),
            "rounds": "quick" if options.quick else str(options.rounds),
        },
        quick=options.quick,
    )
    try:
        peers = run(options, bench, results)
    finally:
        if not any(home.glob("failed-*")):
            shutil.rmtree(home, ignore_errors=True)
    print("  ".join(f"{name}: {fact}" for name, fact in results.facts.items()))
    for line in results.lines(peers):
        print(line)
    if options.json:
        results.save(options.json)
    missed = any(results.is_met(row, goal) is False for row in ROWS for goal in row.goals)
    return 1 if missed or results.failures else 0


if __name__ == "__main__":
    sys.exit(main())
