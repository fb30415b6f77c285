"""leap_ec: the operator of `resilient_scoop.contrib.leap`, which works in an environment of its own."""

import random

import hooks
import numpy as np
from leap_ec import Individual, Representation, ops
from leap_ec.algorithm import generational_ea
from leap_ec.problem import ScalarProblem
from leap_ec.real_rep.initializers import create_real_vector
from leap_ec.real_rep.ops import mutate_gaussian


class Sphere(ScalarProblem):
    def __init__(self):
        super().__init__(maximize=False)

    def evaluate(self, phenome):
        hooks.mark()
        return float(np.sum(phenome**2))


def main():
    random.seed(3)
    np.random.seed(3)
    if hooks.BUILTIN:
        evaluate = Individual.evaluate_population
    else:
        from resilient_scoop.contrib.leap import evaluate
    crowd = generational_ea(
        max_generations=6, pop_size=12, problem=Sphere(), init_evaluate=evaluate,
        representation=Representation(initialize=create_real_vector(bounds=[(-2, 2)] * 3)),
        pipeline=[
            ops.tournament_selection, ops.clone, mutate_gaussian(std=0.3, expected_num_mutations=1),
            ops.pool(size=12), evaluate,
        ],
    )  # fmt: skip
    print(sorted(each.fitness for each in crowd)[:4])


if __name__ == "__main__":
    main()
