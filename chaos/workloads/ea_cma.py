"""CMA-ES by DEAP's eaGenerateUpdate with checkpoints as often as `every_s="auto"` decides."""

from __future__ import annotations

from deap import base, cma, creator, tools

from chaos.workloads import evolution as ev
from resilient_scoop import futures
from resilient_scoop.contrib.deap import eaGenerateUpdate


def main() -> None:
    """Ask and tell; print a line per generation."""
    strategy = cma.Strategy(centroid=[3.0] * 6, sigma=1.0, lambda_=ev.SIZE)
    box = base.Toolbox()
    box.register("generate", strategy.generate, creator.Vector)
    box.register("update", strategy.update)
    box.register("evaluate", ev.sphere)
    box.register("map", futures.map)
    best, stats = tools.HallOfFame(2), ev.make_statistics()
    population, logbook = eaGenerateUpdate(box, 2 * ev.GENERATIONS, best, stats)
    ev.tell(population, best, logbook)
    print(strategy.sigma, strategy.centroid.tolist(), strategy.C.tolist())


if __name__ == "__main__":
    main()
