"""A steady-state evolutionary search: without generations, so no core waits for another.

Some evaluations take five times as long as others. An algorithm with generations waits for the
slowest each time. This one makes a new individual as soon as any result is there:

    done = next(futures.as_completed(pending))

So its next step depends on the order in which results arrive, which differs from run to run. Within
one run, the order is recorded: after `rscoop resume`, or when the process of the script dies and is
started again, the same results arrive in the same order, and the search continues. `--history` prints
that order. Without it, only the fitness levels on the way to the optimum are printed, which are the
same for any order.

The problem: make all bits one; each block of four earns a bonus when it is complete (like the
`royal road` functions of Mitchell, Forrest and Holland, 1992).
"""

from __future__ import annotations

import argparse
import hashlib
import random
import time
from dataclasses import dataclass, field

from resilient_scoop import futures

BLOCK = 4
Genome = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Scored:
    """An individual and its fitness."""

    genome: Genome
    fitness: int


def evaluate(genome: Genome, cost_ms: float) -> Scored:
    """Return the genome with its fitness: one for each bit, and a bonus for each full block."""
    blocks = [genome[i : i + BLOCK] for i in range(0, len(genome), BLOCK)]
    slowness = 1 + hashlib.blake2b(bytes(genome), digest_size=1).digest()[0] % 5
    until = time.thread_time() + slowness * cost_ms / 1000
    while time.thread_time() < until:
        sum(range(200))
    return Scored(genome, sum(genome) + BLOCK * sum(map(all, blocks)))


@dataclass(slots=True)
class Search:
    """The population, the best first, and the chance that varies it."""

    bits: int
    size: int
    rng: random.Random
    population: list[Scored] = field(default_factory=list)

    @property
    def optimum(self) -> int:
        """The fitness of a genome of ones."""
        return self.bits + BLOCK * -(-self.bits // BLOCK)

    @property
    def best(self) -> int:
        """The best fitness so far, 0 before the first result."""
        return self.population[0].fitness if self.population else 0

    def breed(self) -> Genome:
        """Return a new genome: at first a random one, then a mutated cross of two good ones."""
        if len(self.population) < self.size:
            return tuple(self.rng.getrandbits(1) for _ in range(self.bits))
        mother, father = (min(self.rng.sample(range(self.size), 2)) for _ in range(2))
        pairs = zip(self.population[mother].genome, self.population[father].genome, strict=True)
        return tuple(self.rng.choice(pair) ^ (self.rng.random() < 1 / self.bits) for pair in pairs)

    def insert(self, newcomer: Scored) -> None:
        """Take in a result; the worst makes room for it."""
        self.population.append(newcomer)
        self.population.sort(key=lambda scored: scored.fitness, reverse=True)
        del self.population[self.size :]


def say_levels(before: int, after: int, optimum: int) -> None:
    """Print each quarter of the way to the optimum that was passed."""
    for quarter in range(1, 5):
        level = optimum * quarter // 4
        if before < level <= after:
            print(f"passed {level} of {optimum}", flush=True)


def run(search: Search, options: argparse.Namespace) -> int:
    """Search until the optimum or the limit; return how many evaluations it took."""

    def spawn() -> futures.Future[Scored]:
        return futures.submit(evaluate, search.breed(), options.cost_ms)

    pending = [spawn() for _ in range(options.pending)]
    for evaluation in range(1, options.evaluations_max + 1):
        done = next(futures.as_completed(pending))
        pending.remove(done)
        scored, before = done.result(), search.best
        search.insert(scored)
        if options.history:
            print(f"{evaluation}: {scored.fitness} from {''.join(map(str, scored.genome))}")
        say_levels(before, search.best, search.optimum)
        if search.best == search.optimum:
            break
        pending.append(spawn())
    for future in pending:
        future.cancel()
    return evaluation


def main() -> int:
    """Parse the command line, search, say how it ended; 1 if the optimum was not found."""
    parser = argparse.ArgumentParser(description="Search without generations.")
    parser.add_argument("--bits", type=int, default=48)
    parser.add_argument("--population", type=int, default=40)
    parser.add_argument("--pending", type=int, default=16, help="individuals evaluated at a time")
    parser.add_argument("--evaluations-max", type=int, default=50_000)
    parser.add_argument("--cost-ms", type=float, default=1.0, help="CPU time of the fastest one")
    parser.add_argument("--history", action="store_true", help="print every result when it arrives")
    options = parser.parse_args()

    search = Search(options.bits, options.population, futures.rng())
    evaluations = run(search, options)
    if search.best < search.optimum:
        print(f"optimum not found in {evaluations} evaluations: best {search.best}")
        return 1
    if options.history:
        print(f"{evaluations} evaluations")
    print(f"optimum found: {search.optimum}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
