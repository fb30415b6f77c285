"""What the checkpointed evolutionary loops have in common: individuals, an evaluation, the last lines.

The scripts beside it run one kind of loop each. They print each generation as DEAP does, and at the
end everything that a wrong restart would change: the population, the hall of fame, the random
streams.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from deap import base, creator, tools

from chaos.workloads.ledger import running
from resilient_scoop import futures

SIZE, BITS, GENERATIONS = 12, 20, 24
CROSS, MUTATE = 0.6, 0.3

creator.create("Max", base.Fitness, weights=(1.0,))
creator.create("Bits", list, fitness=creator.Max)
creator.create("Min", base.Fitness, weights=(-1.0,))
creator.create("Vector", list, fitness=creator.Min)


def work() -> float:
    """Take as long as a small simulation; return noise from the item's own random stream."""
    info = futures.task_info()
    with running("" if info is None else info.id):
        time.sleep(0.004 + random.random() * 0.016)
        return random.gauss(0, 0.01) + float(np.random.normal(0, 0.01))  # noqa: NPY002 - the global stream is what is tested


def ones(bits: Sequence[int]) -> tuple[float]:
    """Return how many bits are set, with noise."""
    return (sum(bits) + work(),)


def sphere(vector: Iterable[float]) -> tuple[float]:
    """Return the squared length, with noise."""
    return (float(sum(x * x for x in vector)) + work(),)


def fitness(individual: Any) -> float:
    """Return the fitness of an individual."""
    return float(individual.fitness.values[0])


def make_toolbox() -> base.Toolbox:
    """Return the operators of a genetic algorithm over bits."""
    box = base.Toolbox()
    box.register("map", futures.map)
    box.register("evaluate", ones)
    box.register("mate", tools.cxTwoPoint)
    box.register("mutate", tools.mutFlipBit, indpb=0.1)
    box.register("select", tools.selTournament, tournsize=3)
    return box


def make_population() -> list[Any]:
    """Return the first individuals."""
    return [creator.Bits(random.choices((0, 1), k=BITS)) for _ in range(SIZE)]


def make_statistics() -> tools.Statistics:
    """Return the statistics that are printed for each generation."""
    stats = tools.Statistics(fitness)
    stats.register("max", max)
    stats.register("mean", np.mean)
    return stats


def tell(population: list[Any], best: tools.HallOfFame, logbook: tools.Logbook) -> None:
    """Print the result of the loop."""
    for each in population:
        print(list(each), each.fitness.values)
    print([list(each) for each in best], len(logbook))
    print(f"end {random.random()} {np.random.random()}")  # noqa: NPY002 - the global stream is what is tested
