"""Nested checkpoint blocks, and leaves that save their progress; all draw random numbers."""

from __future__ import annotations

import random
import time

from chaos.workloads.ledger import running
from resilient_scoop import checkpoint, futures

WAVES, ISLANDS, ROUNDS, LEAVES, STEPS = 4, 2, 3, 3, 40


def leaf(path: str, weight: float) -> float:
    """Return a number drawn here."""
    with running(path):
        time.sleep(0.01 + 0.02 * random.random())
        return weight * random.random()


def walk(path: str) -> float:
    """Return where a walk of many steps ends; a restarted walk continues where it was."""
    with running(path):
        info = futures.task_info()
        at, place = (info and info.resume) or (0, 0.0)
        while at < STEPS:
            time.sleep(0.01)
            place += random.gauss(0, 1)
            at += 1
            futures.progress(at, STEPS, resume=(at, place))
        return place


def island(path: str, weight: float) -> float:
    """Return the sum of several rounds, each of which is saved."""
    with running(path), checkpoint.durable(at=0, total=0.0) as s:
        while s.at < ROUNDS:
            paths = [f"{path}.{s.at}[{index}]" for index in range(LEAVES)]
            s.total += sum(futures.map(leaf, paths, [weight] * LEAVES)) * random.random()
            s.at += 1
            s.commit(every_s=0.2)
        total: float = s.total
        return total


def main() -> None:
    """Run the waves; print a line for each."""
    with checkpoint.durable(wave=0, total=0.0) as s:
        while s.wave < WAVES:
            call = 2 * s.wave
            walker = futures.submit(walk, f"0.{call}[0]")
            paths = [f"0.{call + 1}[{index}]" for index in range(ISLANDS)]
            weights = [random.uniform(1, 2) for _ in range(ISLANDS)]
            s.total += sum(futures.map(island, paths, weights)) + walker.result()
            print(f"wave {s.wave}: {s.total:.12f} {random.random():.12f}", flush=True)
            s.wave += 1
            s.commit(every_s="auto")
    print(f"end {random.random()}")


if __name__ == "__main__":
    main()
