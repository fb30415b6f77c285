"""DEAP's eaSimple with checkpoints as often as `every_s="auto"` decides."""

from __future__ import annotations

from deap import tools

from chaos.workloads import evolution as ev
from resilient_scoop.contrib.deap import eaSimple


def main() -> None:
    """Evolve; print a line per generation."""
    best, stats = tools.HallOfFame(2), ev.make_statistics()
    population, logbook = eaSimple(
        ev.make_population(), ev.make_toolbox(), ev.CROSS, ev.MUTATE, ev.GENERATIONS,
        stats, best, every_s="auto",
    )  # fmt: skip
    ev.tell(population, best, logbook)


if __name__ == "__main__":
    main()
