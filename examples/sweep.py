"""A parameter sweep: a grid of settings, with a table and a plot at the end.

Differential evolution has two parameters, the weight of the difference and the rate of crossover. How
well does each pair of them minimize the Rastrigin function? Every point of the grid is one call:

    results = futures.options(retries=2).map(measure, points)

With `retries=2`, a call that raises an exception is tried twice more. The death of a worker does not
count as a try: the call runs again on another one. Lines appear in the order of the grid, while later
points are computed.

The files are written once, at the end, as a whole. Do the same in your scripts: after `rscoop resume`
a script runs again from the top with its results, so it repeats its effects outside, and a file that is
written as a whole comes out the same. Each call makes its own generator from its settings, so the
script prints the same numbers on any workers, with any seed, and without `rscoop`.
"""

from __future__ import annotations

import argparse
import csv
import math
import random
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path

from resilient_scoop import futures

DIMENSIONS = 5
POPULATION = 20
LIMIT = 5.12


@dataclass(frozen=True, slots=True)
class Point:
    """One setting to try, and how long."""

    weight: float
    crossover: float
    repeats: int
    generations: int


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the table: mean and best of the minima found; 0 would be perfect."""

    weight: float
    crossover: float
    mean: float
    best: float


def rastrigin(x: Sequence[float]) -> float:
    """Return the height of a bowl full of dents; its minimum is 0 at the origin."""
    return sum(10 + v * v - 10 * math.cos(2 * math.pi * v) for v in x)


def minimize(point: Point, rng: random.Random) -> float:
    """Return the lowest value that differential evolution (rand/1/bin) finds."""
    xs = [[rng.uniform(-LIMIT, LIMIT) for _ in range(DIMENSIONS)] for _ in range(POPULATION)]
    heights = [rastrigin(x) for x in xs]
    for _ in range(point.generations):
        for i, x in enumerate(xs):
            a, b, c = rng.sample(xs, 3)
            forced = rng.randrange(DIMENSIONS)
            trial = [
                a[d] + point.weight * (b[d] - c[d])
                if d == forced or rng.random() < point.crossover
                else x[d]
                for d in range(DIMENSIONS)
            ]
            height = rastrigin(trial)
            if height <= heights[i]:
                xs[i], heights[i] = trial, height
    return min(heights)


def measure(point: Point) -> Row:
    """Try one setting several times."""
    rng = random.Random(f"{point.weight:.3f} {point.crossover:.3f}")
    minima = [minimize(point, rng) for _ in range(point.repeats)]
    return Row(point.weight, point.crossover, sum(minima) / len(minima), min(minima))


def write_table(rows: list[Row], path: Path) -> None:
    """Write the rows as CSV."""
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(field.name for field in fields(Row))
        table.writerows(astuple(row) for row in rows)
    print(f"wrote {path.name}")


def draw(rows: list[Row], path: Path) -> None:
    """Draw the means as a map of the grid, if there is something to draw with."""
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        print(f"no {path.name}: to get it, pip install matplotlib and run again")
        return
    weights = sorted({row.weight for row in rows})
    crossovers = sorted({row.crossover for row in rows})
    mean = {(row.weight, row.crossover): row.mean for row in rows}
    figure = Figure(layout="constrained")
    axes = figure.subplots()
    image = axes.pcolormesh(
        crossovers, weights, [[mean[w, c] for c in crossovers] for w in weights]
    )
    axes.set(xlabel="crossover rate", ylabel="difference weight", title="Rastrigin, 5 dimensions")
    figure.colorbar(image, label="mean minimum found (lower is better)")
    figure.savefig(path)
    print(f"wrote {path.name}")


def grid(options: argparse.Namespace) -> list[Point]:
    """Return the settings to try."""
    steps = [round((i + 1) / options.steps, 3) for i in range(options.steps)]
    return [Point(w, c, options.repeats, options.generations) for w in steps for c in steps]


def main() -> None:
    """Parse the command line, sweep, write the table and the picture."""
    parser = argparse.ArgumentParser(description="Sweep two parameters of differential evolution.")
    parser.add_argument("--steps", type=int, default=8, help="values of each parameter")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--generations", type=int, default=60)
    parser.add_argument("--out", type=Path, default=Path(), help="folder of the files")
    options = parser.parse_args()

    rows = []
    for row in futures.options(retries=2).map(measure, grid(options)):
        print(f"weight {row.weight:.3f}  crossover {row.crossover:.3f}  mean {row.mean:8.4f}")
        rows.append(row)
    best = min(rows, key=lambda row: row.mean)
    print(f"best: weight {best.weight:.3f}, crossover {best.crossover:.3f}, mean {best.mean:.4f}")
    options.out.mkdir(parents=True, exist_ok=True)
    write_table(rows, options.out / "sweep.csv")
    draw(rows, options.out / "sweep.png")


if __name__ == "__main__":
    main()
