"""NSGA-II by pymoo's ask and tell: the whole algorithm is the state, saved in every generation."""

from __future__ import annotations

import random

import numpy as np
from numpy.typing import NDArray
from pymoo.algorithms.moo.nsga2 import NSGA2
from pymoo.core.evaluator import Evaluator
from pymoo.core.problem import Problem
from pymoo.problems.static import StaticProblem

from chaos.workloads import evolution as ev
from resilient_scoop import checkpoint, futures


def goals(x: NDArray[np.float64]) -> tuple[float, float]:
    """Return two goals that oppose each other, with noise."""
    noise = ev.work()
    return float(np.sum(x**2)) + noise, float(np.sum((x - 2) ** 2)) + noise


def make_algorithm() -> NSGA2:
    """Return the algorithm, set up and seeded."""
    problem = Problem(n_var=4, n_obj=2, xl=-5.0, xu=5.0)
    algorithm = NSGA2(pop_size=ev.SIZE)
    algorithm.setup(problem, termination=("n_gen", ev.GENERATIONS), seed=1, verbose=False)
    return algorithm


def main() -> None:
    """Ask and tell; print a line per generation."""
    with checkpoint.durable(algorithm=make_algorithm) as state:
        algorithm = state.algorithm
        while algorithm.has_next():
            asked = algorithm.ask()
            values = np.array(list(futures.map(goals, asked.get("X"))))
            Evaluator().eval(StaticProblem(algorithm.problem, F=values), asked)
            algorithm.tell(infills=asked)
            print(algorithm.n_gen, float(values.sum()), flush=True)
            state.commit()
    print(algorithm.result().F.tolist())
    print(f"end {random.random()} {np.random.random()}")  # noqa: NPY002 - the global stream is what is tested


if __name__ == "__main__":
    main()
