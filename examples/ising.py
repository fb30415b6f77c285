"""Long calls that save partial work: magnets at several temperatures, an hour each if you like.

One Monte Carlo simulation cannot be computed in parallel: it is one long call. If it is killed in its
last minute, it would start from the beginning. So it reports its progress with its state:

    futures.progress(sweep, sweeps, resume=state)

The next attempt finds this state as `futures.task_info().resume`, and the random streams continue from
there, so the result is that of an undisturbed run. Try it:

    rscoop run examples/ising.py --sweeps 20000     and kill a worker, or everything
    rscoop status last                              shows the progress of each temperature
    rscoop resume last

The script simulates the two-dimensional Ising model (single spin flips, Metropolis 1953) and prints
the mean magnetization, which vanishes above the temperature 2.27.
"""

from __future__ import annotations

import argparse
import math
import random
from dataclasses import dataclass

from resilient_scoop import futures


@dataclass
class State:
    """All that a simulation needs to continue: it pickles to a few kilobytes."""

    spins: list[list[int]]
    sweep: int = 0
    total: float = 0.0  # of the magnetizations in the second half


def flip_some(spins: list[list[int]], temperature: float) -> None:
    """Give every spin a chance to flip."""
    size = len(spins)
    for _ in range(size * size):
        x, y = random.randrange(size), random.randrange(size)
        around = (
            spins[x - 1][y] + spins[(x + 1) % size][y] + spins[x][y - 1] + spins[x][(y + 1) % size]
        )
        cost = 2 * spins[x][y] * around
        if cost <= 0 or random.random() < math.exp(-cost / temperature):
            spins[x][y] = -spins[x][y]


def simulate(temperature: float, size: int, sweeps: int) -> float:
    """Return the mean magnetization, from 0 to 1."""
    info = futures.task_info()
    state = info.resume if info else None
    if state is None:
        state = State([[1] * size for _ in range(size)])
    while state.sweep < sweeps:
        flip_some(state.spins, temperature)
        state.sweep += 1
        if state.sweep > sweeps // 2:
            state.total += abs(sum(map(sum, state.spins))) / size**2
        futures.progress(state.sweep, sweeps, resume=state)
    return float(state.total / (sweeps - sweeps // 2))


def main() -> None:
    """Parse the command line, simulate, print a line for each temperature."""
    parser = argparse.ArgumentParser(description="Simulate magnets at several temperatures.")
    parser.add_argument("--size", type=int, default=24, help="spins along each side")
    parser.add_argument("--sweeps", type=int, default=2000)
    parser.add_argument("--temperatures", type=float, nargs="+", default=[1.5, 2.0, 2.27, 2.5, 3.0])
    options = parser.parse_args()
    count = len(options.temperatures)
    found = futures.map(
        simulate, options.temperatures, [options.size] * count, [options.sweeps] * count
    )
    for temperature, magnetization in zip(options.temperatures, found, strict=True):
        print(f"at {temperature:4.2f}: magnetization {magnetization:.4f}")


if __name__ == "__main__":
    main()
