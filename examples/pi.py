"""Pi by Monte Carlo: random numbers that do not depend on the worker.

Each call draws points in a square and counts those in the quarter of a circle. It draws from
`futures.rng()`, a `random.Random` that is seeded for each call from the seed of the run and the
position of the call in the script. So the answer has the same digits on one worker and on a hundred,
also when some of them die and their calls run again on others:

    rscoop run -n 1 --seed 7 examples/pi.py
    rscoop run -n 8 --seed 7 examples/pi.py

`random` and `numpy.random` are seeded in the same way; `futures.rng()` makes it visible in the code.
"""

from __future__ import annotations

import argparse
import math

from resilient_scoop import futures


def hits(points: int) -> int:
    """Throw points at the unit square and return how many fall in the quarter of the circle."""
    rng = futures.rng()
    return sum(rng.random() ** 2 + rng.random() ** 2 <= 1.0 for _ in range(points))


def main() -> None:
    """Parse the command line, throw, print the estimate and its error."""
    parser = argparse.ArgumentParser(description="Estimate pi.")
    parser.add_argument("--tasks", type=int, default=64)
    parser.add_argument("--points", type=int, default=100_000, help="points of each task")
    options = parser.parse_args()

    inside = sum(futures.map(hits, [options.points] * options.tasks))
    points = options.points * options.tasks
    estimate = 4 * inside / points
    error = 4 * math.sqrt(inside * (points - inside) / points**3)
    print(f"{inside} of {points} points are inside")
    print(f"pi is {estimate:.6f} +- {error:.6f}")


if __name__ == "__main__":
    main()
