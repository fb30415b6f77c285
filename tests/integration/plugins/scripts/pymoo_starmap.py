"""pymoo: `StarmapParallelization(pool.starmap)`."""

import hooks
from pymoo.algorithms.moo.nsga2 import NSGA2
from pymoo.core.problem import ElementwiseProblem
from pymoo.optimize import minimize
from pymoo.parallelization.starmap import StarmapParallelization


class Curve(ElementwiseProblem):
    def __init__(self, **more):
        super().__init__(n_var=3, n_obj=2, xl=-2.0, xu=2.0, **more)

    def _evaluate(self, x, out, *args, **kwargs):
        hooks.mark()
        out["F"] = [float(((x - 1) ** 2).sum()), float(((x + 1) ** 2).sum())]


def main():
    with hooks.pool() as pool:
        problem = Curve(elementwise_runner=StarmapParallelization(pool.starmap))
        done = minimize(problem, NSGA2(pop_size=12), ("n_gen", 6), seed=3)
    print(done.F.tolist())


if __name__ == "__main__":
    main()
