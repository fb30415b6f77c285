"""OneMax with DEAP: an evolutionary algorithm whose evaluations run on all cores.

One line makes a DEAP script parallel, and lets it survive crashes:

    toolbox.register("map", futures.map)

Run it, and kill what you like while it runs (a worker, the broker, everything):

    rscoop run examples/onemax.py
    rscoop resume last

It prints the same lines as a run without kills: finished evaluations come from the journal, the others
are computed, and the random numbers are the same. The reasons:

- `creator` classes are made at module level, so every worker has them
- all variation happens in the script, which draws from `random`, seeded once
- `evaluate` is a plain function of its arguments

Counting ones is too cheap for a call, so `--cost-ms` adds CPU time to each evaluation, as a real
simulation would need. Needs `pip install deap`.
"""

from __future__ import annotations

import argparse
import random
import sys
import time

from resilient_scoop import futures

try:
    from deap import algorithms, base, creator, tools
except ModuleNotFoundError:
    if __name__ != "__main__":
        raise
    print("onemax.py needs DEAP: pip install deap (or resilient-scoop[examples])", file=sys.stderr)
    sys.exit(2)

creator.create("FitnessMax", base.Fitness, weights=(1.0,))
creator.create("Individual", list, fitness=creator.FitnessMax)


def burn(cost_ms: float) -> None:
    """Keep a core busy: stands for the simulation that a real evaluation would run."""
    until = time.thread_time() + cost_ms / 1000
    while time.thread_time() < until:
        sum(range(500))


def evaluate(individual: list[int], cost_ms: float) -> tuple[int]:
    """Return the fitness: how many bits are one."""
    burn(cost_ms)
    return (sum(individual),)


def make_toolbox(bits: int, cost_ms: float) -> base.Toolbox:
    """Return the operators of the algorithm."""
    toolbox = base.Toolbox()
    toolbox.register("bit", random.randint, 0, 1)
    toolbox.register("individual", tools.initRepeat, creator.Individual, toolbox.bit, bits)
    toolbox.register("population", tools.initRepeat, list, toolbox.individual)
    toolbox.register("evaluate", evaluate, cost_ms=cost_ms)
    toolbox.register("mate", tools.cxTwoPoint)
    toolbox.register("mutate", tools.mutFlipBit, indpb=1 / bits)
    toolbox.register("select", tools.selTournament, tournsize=2)
    toolbox.register("map", futures.map)
    return toolbox


def assess(toolbox: base.Toolbox, population: list[creator.Individual]) -> None:
    """Evaluate, in parallel, every individual whose fitness is not known."""
    unknown = [individual for individual in population if not individual.fitness.valid]
    fitnesses = toolbox.map(toolbox.evaluate, unknown)
    for individual, fitness in zip(unknown, fitnesses, strict=True):
        individual.fitness.values = fitness


def report(generation: int, population: list[creator.Individual]) -> None:
    """Print one line about a generation."""
    ones = [individual.fitness.values[0] for individual in population]
    mean = sum(ones) / len(ones)
    print(f"generation {generation:4d}: best {max(ones):4.0f}, mean {mean:6.1f}", flush=True)


def evolve(options: argparse.Namespace) -> creator.Individual:
    """Run the algorithm and return the best individual ever seen."""
    random.seed(options.seed)
    toolbox = make_toolbox(options.bits, options.cost_ms)
    best = tools.HallOfFame(1)
    population = toolbox.population(n=options.population)
    assess(toolbox, population)
    for generation in range(options.generations + 1):
        if generation:
            parents = toolbox.select(population, len(population))
            population = algorithms.varAnd(parents, toolbox, cxpb=0.6, mutpb=0.3)
            assess(toolbox, population)
        best.update(population)
        if generation % 10 == 0 or generation == options.generations:
            report(generation, population)
    return best[0]


def main() -> None:
    """Parse the command line, evolve, print the best."""
    parser = argparse.ArgumentParser(description="Maximize the number of ones in a string of bits.")
    parser.add_argument("--generations", type=int, default=100)
    parser.add_argument("--population", type=int, default=300)
    parser.add_argument("--bits", type=int, default=100)
    parser.add_argument("--cost-ms", type=float, default=2.0, help="CPU time of one evaluation")
    parser.add_argument("--seed", type=int, default=64)
    options = parser.parse_args()
    best = evolve(options)
    print(f"best: {sum(best)} of {options.bits} ones")


if __name__ == "__main__":
    main()
