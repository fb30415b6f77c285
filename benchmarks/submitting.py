"""The script that `benchmarks.executor` measures: `submitting.py HOW COUNT`, each in a process of its own.

HOW is `futures` or `run` (under `rscoop run`), `session` or `ppe` (under `python`). Its last line is
`FIGURES` and a JSON object.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from benchmarks import load

WORKERS: Final = 2
_WARM: Final = 100


def measure(submit: Callable[[Any, int], Any], count: int) -> dict[str, float]:
    """Submit one by one, then await all; workers and function are loaded before."""
    for future in [submit(load.noop, number) for number in range(-_WARM, 0)]:
        future.result()
    used_s = cpu_s()
    began = time.perf_counter()
    futures = [submit(load.noop, number) for number in range(count)]
    submitted = time.perf_counter()
    for future in futures:
        future.result()
    ended = time.perf_counter()
    return {
        "per_s": count / (ended - began),
        "submitted_per_s": count / (submitted - began),
        "cpu_us": (cpu_s() - used_s) * 1e6 / count,
    }


def cpu_s() -> float:
    """Return the CPU time that the live processes of this measurement have used."""
    mark = f"RSCOOP_BENCH={os.environ['RSCOOP_BENCH']}".encode()
    used_ns = 0
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            if mark in (entry / "environ").read_bytes().split(b"\0"):
                threads = (entry / "task").iterdir()
                used_ns += sum(int((each / "schedstat").read_text().split()[0]) for each in threads)
        except OSError:
            continue  # it has ended, or is another user's
    return used_ns / 1e9


def main() -> None:
    """Take one measurement."""
    how, count = sys.argv[1], int(sys.argv[2])
    began = time.perf_counter()
    if how == "futures":
        from resilient_scoop import futures

        figures = measure(futures.submit, count)
    elif how == "ppe":
        from concurrent.futures import ProcessPoolExecutor

        with ProcessPoolExecutor(WORKERS) as pool:
            pool.submit(load.noop, 0).result()
            first_s = time.perf_counter() - began
            figures = measure(pool.submit, count) | {"first_s": first_s}
    else:
        from resilient_scoop import Executor

        with Executor(WORKERS) as executor:
            executor.submit(load.noop, 0).result()
            first_s = time.perf_counter() - began
            figures = measure(executor.submit, count) | {"first_s": first_s}
    print("FIGURES", json.dumps(figures), flush=True)


if __name__ == "__main__":
    main()
