"""An evolutionary algorithm with its own random numbers, so `python` prints the same as `rscoop run`."""

from __future__ import annotations

import random

from chaos.workloads.ledger import pause, running
from resilient_scoop import futures

GENERATIONS, SIZE, BITS = 10, 18, 24
Genome = tuple[int, ...]


def evaluate(path: str, genome: Genome) -> float:
    """Return the fitness of a genome, with noise that depends on it alone."""
    with running(path):
        rng = random.Random(repr(genome))
        pause(0.01 + 0.03 * rng.random())
        return sum(genome) + rng.gauss(0, 0.1)


def breed(rng: random.Random, population: list[Genome], fitness: list[float]) -> list[Genome]:
    """Return the next generation: mutated crosses of tournament winners."""

    def winner() -> Genome:
        a, b = rng.sample(range(len(population)), 2)
        return population[a if fitness[a] >= fitness[b] else b]

    def child() -> Genome:
        cut = rng.randrange(BITS)
        mixed = winner()[:cut] + winner()[cut:]
        return tuple(bit ^ (rng.random() < 1 / BITS) for bit in mixed)

    return [child() for _ in population]


def main() -> None:
    """Evolve; print a line per generation."""
    rng = random.Random(11)
    population = [tuple(rng.getrandbits(1) for _ in range(BITS)) for _ in range(SIZE)]
    for generation in range(GENERATIONS):
        paths = [f"0.{generation}[{index}]" for index in range(SIZE)]
        fitness = list(futures.map(evaluate, paths, population))
        print(f"generation {generation}: best {max(fitness):.9f} of {sum(fitness):.9f}", flush=True)
        population = breed(rng, population, fitness)
    print(f"end {rng.random()}")


if __name__ == "__main__":
    main()
