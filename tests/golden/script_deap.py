"""A user's script that sends individuals of DEAP, whose pickles name functions of the runtime."""

import sys
import time
from pathlib import Path

from deap import base, creator

from resilient_scoop import futures

creator.create("Fitness", base.Fitness, weights=(1.0,))
creator.create("Individual", list, fitness=creator.Fitness)


def evaluate(individual: creator.Individual) -> creator.Individual:
    if individual[0] >= 40:
        while not Path(sys.argv[1]).exists():
            time.sleep(0.01)
    individual.fitness.values = (float(sum(individual)),)
    return individual


if __name__ == "__main__":
    first = list(futures.map(evaluate, [creator.Individual([i, i + 1]) for i in range(30)]))
    print("first", sum(each.fitness.values[0] for each in first), flush=True)
    second = list(futures.map(evaluate, [creator.Individual([i, 1]) for i in range(30, 50)]))
    print("second", sum(each.fitness.values[0] for each in second))
