"""Maps of maps with their own random numbers, so `python` prints the same as `rscoop run`."""

from __future__ import annotations

import random

from chaos.workloads.ledger import pause, running
from resilient_scoop import futures

WAVES, BRANCHES, LEAVES = 4, 4, 6


def leaf(path: str, weight: float) -> float:
    """Return a number that depends on the path; one leaf in ten is slow."""
    with running(path):
        rng = random.Random(path)
        pause(0.2 if rng.random() < 0.1 else 0.02 + 0.02 * rng.random())  # noqa: PLR2004 - one in ten
        return weight * rng.random()


def branch(path: str, weight: float) -> float:
    """Return the sum of its leaves and of one more leaf that depends on that sum."""
    with running(path):
        paths = [f"{path}.0[{index}]" for index in range(LEAVES)]
        total = sum(futures.map(leaf, paths, [weight] * LEAVES))
        return total + futures.submit(leaf, f"{path}.1[0]", total).result()


def main() -> None:
    """Run the waves, each with weights from the one before; print a line for each branch."""
    weights = [1.0] * BRANCHES
    for wave in range(WAVES):
        paths = [f"0.{wave}[{index}]" for index in range(BRANCHES)]
        weights = list(futures.map(branch, paths, weights))
        for path, total in zip(paths, weights, strict=True):
            print(f"{path}: {total:.12f}", flush=True)
    print("end")


if __name__ == "__main__":
    main()
