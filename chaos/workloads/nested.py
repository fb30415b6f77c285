"""Maps of maps of maps: parents wait, a few leaves are slow, and each item draws random numbers."""

from __future__ import annotations

import random

from chaos.workloads.ledger import pause, running
from resilient_scoop import futures

WAVES, BRANCHES, TWIGS, LEAVES = 3, 3, 2, 5
SLOW = 0.1  # share of the leaves


def leaf(path: str, weight: float) -> float:
    """Return a number drawn here; one leaf in ten is slow."""
    with running(path):
        slow = random.random() < SLOW
        pause(0.25 if slow else 0.02 + 0.02 * random.random())
        return weight * random.random()


def twig(path: str, weight: float) -> float:
    """Return the sum of its leaves, drawing between its calls."""
    with running(path):
        first = random.random()
        paths = [f"{path}.0[{index}]" for index in range(LEAVES)]
        total = sum(futures.map(leaf, paths, [weight] * LEAVES))
        single = futures.submit(leaf, f"{path}.1[0]", first)
        return total + first * random.random() + single.result()


def branch(path: str) -> tuple[float, float]:
    """Return the sum of its twigs and of a draw after them."""
    with running(path):
        weights = [random.uniform(1, 2) for _ in range(TWIGS)]
        pending = [
            futures.submit(twig, f"{path}.{call}[0]", weight) for call, weight in enumerate(weights)
        ]
        done = list(futures.as_completed(pending))
        return sum(sorted(future.result() for future in done)), random.random()


def main() -> None:
    """Run the waves; print a line for each branch."""
    for wave in range(WAVES):
        paths = [f"0.{wave}[{index}]" for index in range(BRANCHES)]
        for path, (total, drawn) in zip(paths, futures.map(branch, paths), strict=True):
            print(f"{path}: {total:.12f} {drawn:.12f}", flush=True)
    print(f"end {random.random()}")


if __name__ == "__main__":
    main()
