"""An evolutionary algorithm with a barrier per generation.

Its evaluations draw random numbers and need a constant.
"""

from __future__ import annotations

import random

import numpy as np

from chaos.workloads.ledger import pause, running
from resilient_scoop import futures, shared

GENERATIONS, SIZE, BITS = 9, 20, 24
Genome = tuple[int, ...]


def evaluate(path: str, genome: Genome) -> float:
    """Return the noisy fitness of a genome: the noise depends on the item, not on its worker."""
    with running(path):
        pause(0.005 + random.random() * 0.03)
        target = shared.getConst("target")
        noise = random.gauss(0, 0.1) + float(np.random.normal(0, 0.1))  # noqa: NPY002 - the global stream is what is tested
        hits: int = sum(a == b for a, b in zip(genome, target, strict=True))
        return hits + noise


def breed(population: list[Genome], fitness: list[float]) -> list[Genome]:
    """Return the next generation: mutated crosses of tournament winners."""

    def winner() -> Genome:
        a, b = random.sample(range(len(population)), 2)
        return population[a if fitness[a] >= fitness[b] else b]

    def child() -> Genome:
        cut = random.randrange(BITS)
        mixed = winner()[:cut] + winner()[cut:]
        return tuple(bit ^ (random.random() < 1 / BITS) for bit in mixed)

    return [child() for _ in population]


def main() -> None:
    """Evolve; print a line per generation."""
    shared.setConst(target=tuple(random.getrandbits(1) for _ in range(BITS)))
    population = [tuple(random.getrandbits(1) for _ in range(BITS)) for _ in range(SIZE)]
    for generation in range(GENERATIONS):
        paths = [f"0.{generation}[{index}]" for index in range(SIZE)]
        fitness = list(futures.map(evaluate, paths, population))
        mean = sum(fitness) / SIZE
        print(f"generation {generation}: best {max(fitness):.9f} mean {mean:.9f}", flush=True)
        population = breed(population, fitness)
    print(f"end {random.random()} {np.random.random()}")  # noqa: NPY002 - the global stream is what is tested


if __name__ == "__main__":
    main()
