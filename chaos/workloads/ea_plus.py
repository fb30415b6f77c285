"""DEAP's eaMuPlusLambda with a checkpoint of every generation."""

from __future__ import annotations

from deap import tools

from chaos.workloads import evolution as ev
from resilient_scoop.contrib.deap import eaMuPlusLambda


def main() -> None:
    """Evolve; print a line per generation."""
    best, stats = tools.HallOfFame(2), ev.make_statistics()
    population, logbook = eaMuPlusLambda(
        ev.make_population(), ev.make_toolbox(), ev.SIZE, ev.SIZE + 4, ev.CROSS, ev.MUTATE, ev.GENERATIONS,
        stats, best, every_s=None,
    )  # fmt: skip
    ev.tell(population, best, logbook)


if __name__ == "__main__":
    main()
