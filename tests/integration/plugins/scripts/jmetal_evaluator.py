"""jmetalpy: the evaluator of `resilient_scoop.contrib.jmetal`."""

import logging
import random

import hooks
import numpy as np
from jmetal.algorithm.multiobjective.nsgaii import NSGAII
from jmetal.core.problem import FloatProblem
from jmetal.operator.crossover import SBXCrossover
from jmetal.operator.mutation import PolynomialMutation
from jmetal.util.evaluator import SequentialEvaluator
from jmetal.util.termination_criterion import StoppingByEvaluations


class Curve(FloatProblem):
    def __init__(self):
        super().__init__()
        self.lower_bound, self.upper_bound = [-4.0] * 2, [4.0] * 2
        self.obj_directions = [self.MINIMIZE, self.MINIMIZE]

    def number_of_variables(self):
        return 2

    def number_of_objectives(self):
        return 2

    def number_of_constraints(self):
        return 0

    def name(self):
        return "curve"

    def evaluate(self, solution):
        hooks.mark()
        x, y = solution.variables
        solution.objectives[0] = x * x + y * y
        solution.objectives[1] = (x - 2) ** 2 + y * y
        return solution


def main():
    logging.disable()
    random.seed(6)
    np.random.seed(6)
    if hooks.BUILTIN:
        evaluator = SequentialEvaluator()
    else:
        from resilient_scoop.contrib.jmetal import MapEvaluator

        evaluator = MapEvaluator()
    algorithm = NSGAII(
        problem=Curve(), population_size=12, offspring_population_size=12,
        mutation=PolynomialMutation(0.5, 20), crossover=SBXCrossover(0.9, 20),
        termination_criterion=StoppingByEvaluations(72), population_evaluator=evaluator,
    )  # fmt: skip
    algorithm.run()
    print([list(map(float, each.objectives)) for each in algorithm.result()])


if __name__ == "__main__":
    main()
