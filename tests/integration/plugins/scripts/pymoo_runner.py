"""pymoo: the runner of `resilient_scoop.contrib.pymoo`, a problem with constraints."""

import hooks
from pymoo.algorithms.soo.nonconvex.ga import GA
from pymoo.core.problem import ElementwiseProblem, LoopedElementwiseEvaluation
from pymoo.optimize import minimize


class Sphere(ElementwiseProblem):
    def __init__(self, **more):
        super().__init__(n_var=3, n_obj=1, n_ieq_constr=1, xl=-2.0, xu=2.0, **more)

    def _evaluate(self, x, out, *args, **kwargs):
        hooks.mark()
        out["F"] = float((x**2).sum())
        out["G"] = 0.5 - float(x[0])


def main():
    if hooks.BUILTIN:
        runner = LoopedElementwiseEvaluation()
    else:
        from resilient_scoop.contrib.pymoo import Runner

        runner = Runner()
    done = minimize(Sphere(elementwise_runner=runner), GA(pop_size=12), ("n_gen", 6), seed=3)
    print(done.X.tolist(), done.F.tolist(), done.G.tolist())


if __name__ == "__main__":
    main()
