"""deap: CMA-ES, eaGenerateUpdate."""

import hooks
import numpy as np
from deap import algorithms, base, benchmarks, cma, creator, tools

creator.create("Min", base.Fitness, weights=(-1.0,))
creator.create("Vector", list, fitness=creator.Min)


def rastrigin(vector):
    hooks.mark()
    return benchmarks.rastrigin(vector)


def main():
    np.random.seed(11)
    box = base.Toolbox()
    strategy = cma.Strategy(centroid=[3.0] * 4, sigma=2.0, lambda_=10)
    box.register("map", hooks.mapper())
    box.register("evaluate", rastrigin)
    box.register("generate", strategy.generate, creator.Vector)
    box.register("update", strategy.update)
    best = tools.HallOfFame(1)
    algorithms.eaGenerateUpdate(box, 8, best, verbose=False)
    print(list(best[0]), best[0].fitness.values, np.random.random())


if __name__ == "__main__":
    main()
