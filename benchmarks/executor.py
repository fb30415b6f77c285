"""What `Executor.submit` costs, compared with `futures.submit` and ProcessPoolExecutor, in turns.

    python -m benchmarks.executor --rounds 5 --folder /var/tmp

In each round, four programs submit no-ops one by one and await all: `futures.submit` and an
`Executor` under `rscoop run`, an `Executor` in a session of a plain program, and a
ProcessPoolExecutor. Each is a separate process tree; the order changes from round to round. Ratios
are those of the same round. Exit code 1: a goal was missed.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shutil
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Final

from benchmarks.outside import Bench, line_of, new_mark, started
from benchmarks.submitting import WORKERS

HOWS: Final = ("futures", "run", "session", "ppe")
_RATE_MIN: Final = 0.9
"""Least rate of an `Executor`, as a part of that of `futures.submit`."""
_FIRST_S_MAX: Final = 0.6
"""Longest time from the start of a session to its first result."""
Measured = dict[str, float]


def take(bench: Bench, how: str, count: int) -> Measured:
    """Take one measurement in a separate process tree."""
    bench = dataclasses.replace(bench, mark=new_mark())
    peer = "ours" if how in {"futures", "run"} else "ppe"
    command = bench.command(peer, "submitting.py", how, str(count))
    with started(bench, command) as process:
        measured: Measured = json.loads(line_of(process, "FIGURES"))
        process.wait()
        return measured


def lines(rounds: list[dict[str, Measured]]) -> list[str]:
    """Return the table."""
    found = []
    for how in HOWS:
        rates = [each[how]["per_s"] for each in rounds]
        ratios = [each[how]["per_s"] / each["futures"]["per_s"] for each in rounds]
        cpu_us = statistics.median(each[how]["cpu_us"] for each in rounds)
        line = f"{how:<8} {statistics.median(rates):>9,.0f} /s   x futures {_spread(ratios)}"
        line += f"   CPU {cpu_us:.1f} us"
        firsts = [each[how]["first_s"] for each in rounds if "first_s" in each[how]]
        if firsts:
            line += f"   first result after {_spread(firsts)} s"
        found.append(line)
    return found


def _spread(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def missed(rounds: list[dict[str, Measured]]) -> list[str]:
    """Return the goals that were missed."""
    found = []
    for how in ("run", "session"):
        ratio = statistics.median(each[how]["per_s"] / each["futures"]["per_s"] for each in rounds)
        if ratio < _RATE_MIN:
            found.append(
                f"{how}: {ratio:.2f} of futures.submit, and should be {_RATE_MIN} at least"
            )
    first_s = statistics.median(each["session"]["first_s"] for each in rounds)
    if first_s > _FIRST_S_MAX:
        found.append(f"session: first result after {first_s:.2f} s, and should be {_FIRST_S_MAX} s")
    return found


def main() -> int:
    """Measure and print the table; return 1 if a goal was missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.executor", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="default: %(default)s")
    parser.add_argument("--count", type=int, default=10_000, help="calls (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    parser.add_argument(
        "--folder", type=Path, default=Path("/var/tmp"),
        help="where runs are kept, on the disk that counts (default: %(default)s)",
    )  # fmt: skip
    options = parser.parse_args()
    home = Path(tempfile.mkdtemp(prefix="rscoop-bench-", dir=options.folder))
    bench = Bench(home, sys.executable)
    rounds: list[dict[str, Measured]] = []
    try:
        for number in range(options.rounds):
            turn = number % len(HOWS)
            order = HOWS[turn:] + HOWS[:turn]
            rounds.append({how: take(bench, how, options.count) for how in order})
    finally:
        if not any(home.glob("failed-*")):
            shutil.rmtree(home, ignore_errors=True)
    if options.json:
        options.json.write_text(json.dumps(rounds, indent=1))
    print(f"{options.count:,} no-ops, {WORKERS} workers, {len(rounds)} rounds: median (range)")
    for line in lines(rounds):
        print(line)
    failures = missed(rounds)
    for failure in failures:
        print(f"NOT met: {failure}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
