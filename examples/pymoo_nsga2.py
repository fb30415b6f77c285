"""NSGA-II with pymoo: the workers evaluate, and a checkpoint holds the whole algorithm.

    rscoop run examples/pymoo_nsga2.py
    rscoop resume last

Between pymoo's `algorithm.ask()` and `algorithm.tell()`, `futures.map` evaluates the candidates. The
algorithm object holds everything (population, archive, its own random generator), so it is the state of
a `checkpoint.durable` block. After a crash it comes back from the last commit, and only the generations
after it are replayed.

The task: a bar with a hollow cross-section, light and stiff at once (two goals, one constraint).
`--cost-ms` adds CPU time, as a real simulation would need. Needs `pip install pymoo`.
"""

from __future__ import annotations

import argparse
import sys
import time

import numpy as np

from resilient_scoop import checkpoint, futures

try:
    from pymoo.algorithms.moo.nsga2 import NSGA2
    from pymoo.core.evaluator import Evaluator
    from pymoo.core.problem import Problem
    from pymoo.problems.static import StaticProblem
except ModuleNotFoundError:
    if __name__ != "__main__":
        raise
    print("pymoo_nsga2.py needs pymoo: pip install pymoo", file=sys.stderr)
    sys.exit(2)

LENGTH_M, DENSITY, MODULUS, LOAD_N = 1.0, 7850.0, 210e9, 10_000.0
STRESS_MAX = 250e6


def evaluate(x: np.ndarray, cost_ms: float) -> tuple[float, float, float]:
    """Return (mass, deflection, excess of stress) of a tube of outer diameter x[0], wall x[1]."""
    until = time.thread_time() + cost_ms / 1000
    while time.thread_time() < until:
        sum(range(500))
    outer, inner = float(x[0]), float(x[0] - 2 * x[1])
    area = np.pi / 4 * (outer**2 - inner**2)
    inertia = np.pi / 64 * (outer**4 - inner**4)
    mass = LENGTH_M * DENSITY * area
    deflection = LOAD_N * LENGTH_M**3 / (3 * MODULUS * inertia)
    stress = LOAD_N * LENGTH_M * (outer / 2) / inertia
    return float(mass), float(deflection), float(stress / STRESS_MAX - 1)


def make_algorithm(options: argparse.Namespace) -> NSGA2:
    """Return the algorithm, set up and seeded."""
    low, high = np.array([0.04, 0.002]), np.array([0.2, 0.018])
    problem = Problem(n_var=2, n_obj=2, n_ieq_constr=1, xl=low, xu=high)
    algorithm = NSGA2(pop_size=options.population)
    termination = ("n_gen", options.generations)
    algorithm.setup(problem, termination=termination, seed=options.seed, verbose=False)
    return algorithm


def main() -> None:
    """Parse the command line, optimize, print the ends of the front."""
    parser = argparse.ArgumentParser(description="Design a light and stiff bar with NSGA-II.")
    parser.add_argument("--generations", type=int, default=60)
    parser.add_argument("--population", type=int, default=60)
    parser.add_argument("--cost-ms", type=float, default=2.0, help="CPU time of one evaluation")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with checkpoint.durable(algorithm=lambda: make_algorithm(options)) as state:
        algorithm = state.algorithm
        while algorithm.has_next():
            candidates = algorithm.ask()
            found = futures.map(evaluate, candidates.get("X"), [options.cost_ms] * len(candidates))
            values = np.array(list(found))
            known = StaticProblem(algorithm.problem, F=values[:, :2], G=values[:, 2:])
            Evaluator().eval(known, candidates)
            algorithm.tell(infills=candidates)
            state.commit(every_s="auto")
    front = algorithm.result().F
    front = front[np.argsort(front[:, 0])]
    for name, (mass, deflection) in (("lightest", front[0]), ("stiffest", front[-1])):
        print(f"{name}: {mass:.3f} kg, {1000 * deflection:.3f} mm")
    print(f"front: {len(front)} designs, sum {front.sum():.9f}")


if __name__ == "__main__":
    main()
