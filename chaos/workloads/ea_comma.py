"""DEAP's eaMuCommaLambda with a checkpoint at most every tenth of a second."""

from __future__ import annotations

from deap import tools

from chaos.workloads import evolution as ev
from resilient_scoop.contrib.deap import eaMuCommaLambda


def main() -> None:
    """Evolve; print a line per generation."""
    best, stats = tools.HallOfFame(2), ev.make_statistics()
    population, logbook = eaMuCommaLambda(
        ev.make_population(), ev.make_toolbox(), ev.SIZE, ev.SIZE + 4, ev.CROSS, ev.MUTATE, ev.GENERATIONS,
        stats, best, every_s=0.1,
    )  # fmt: skip
    ev.tell(population, best, logbook)


if __name__ == "__main__":
    main()
