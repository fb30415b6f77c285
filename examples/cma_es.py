"""CMA-ES with DEAP and a checkpoint: mean, step size and covariances of the strategy survive any crash.

    rscoop run examples/cma_es.py
    rscoop resume last

`toolbox.generate` asks the strategy for candidates, the workers evaluate them, `toolbox.update` gives
the results to the strategy. `eaGenerateUpdate` is DEAP's loop with the same arguments, from
`resilient_scoop.contrib.deap`. It finds the strategy behind the toolbox, and saves it with the hall of
fame, the logbook and the random streams in a checkpoint. So a run of a month resumes in seconds and
ends with the same numbers to the last digit.

The cost is the Rosenbrock function, a curved valley. `--cost-ms` adds CPU time to each evaluation, as
a real simulation would need. Needs `pip install deap`.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time

import numpy as np

from resilient_scoop import futures

try:
    from deap import base, cma, creator, tools

    from resilient_scoop.contrib.deap import eaGenerateUpdate
except ModuleNotFoundError:
    if __name__ != "__main__":
        raise
    print("cma_es.py needs DEAP: pip install deap (or resilient-scoop[examples])", file=sys.stderr)
    sys.exit(2)

creator.create("FitnessMin", base.Fitness, weights=(-1.0,))
creator.create("Vector", list, fitness=creator.FitnessMin)


def rosenbrock(x: list[float], cost_ms: float) -> tuple[float]:
    """Return the cost; the least is 0, where all coordinates are 1."""
    until = time.thread_time() + cost_ms / 1000
    while time.thread_time() < until:
        sum(range(500))
    steps = (100 * (b - a * a) ** 2 + (1 - a) ** 2 for a, b in itertools.pairwise(x))
    return (float(sum(steps)),)


def make_toolbox(options: argparse.Namespace) -> base.Toolbox:
    """Return the strategy's two ends, the cost and the map."""
    size = options.dimensions
    candidates = options.candidates or 4 + 3 * round(np.log(size))
    strategy = cma.Strategy(centroid=[-1.0] * size, sigma=0.5, lambda_=candidates)
    toolbox = base.Toolbox()
    toolbox.register("generate", strategy.generate, creator.Vector)
    toolbox.register("update", strategy.update)
    toolbox.register("evaluate", rosenbrock, cost_ms=options.cost_ms)
    toolbox.register("map", futures.map)
    return toolbox


def main() -> None:
    """Parse the command line, minimize, print the best."""
    parser = argparse.ArgumentParser(description="Minimize the Rosenbrock function by CMA-ES.")
    parser.add_argument("--generations", type=int, default=300)
    parser.add_argument("--dimensions", type=int, default=8)
    parser.add_argument("--candidates", type=int, default=0, help="per generation; 0: by dimension")
    parser.add_argument("--cost-ms", type=float, default=2.0, help="CPU time of one evaluation")
    parser.add_argument("--seed", type=int, default=128)
    options = parser.parse_args()
    np.random.seed(options.seed)  # noqa: NPY002 - the stream that DEAP's strategy draws from
    stats = tools.Statistics(lambda vector: vector.fitness.values[0])
    stats.register("best", min)
    best = tools.HallOfFame(1)
    _, logbook = eaGenerateUpdate(
        make_toolbox(options), options.generations, halloffame=best, stats=stats, verbose=False
    )
    for entry in logbook[:: max(1, options.generations // 10)]:
        print(f"generation {entry['gen']:4d}: {entry['best']:.6g}")
    print(f"best: {best[0].fitness.values[0]:.6g} at {[round(float(x), 4) for x in best[0]]}")


if __name__ == "__main__":
    main()
