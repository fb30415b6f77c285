"""platypus: `MapEvaluator(futures.map)`."""

import random

import hooks
from platypus import NSGAII, MapEvaluator, Problem, Real


def belegundu(x):
    hooks.mark()
    return [-2 * x[0] + x[1], 2 * x[0] + x[1]], [-x[0] + x[1] - 1, x[0] + x[1] - 7]


def main():
    random.seed(2)
    problem = Problem(2, 2, 2, function=belegundu)
    problem.types[:] = [Real(0, 5), Real(0, 3)]
    problem.constraints[:] = "<=0"
    algorithm = NSGAII(problem, population_size=16, evaluator=MapEvaluator(hooks.mapper()))
    algorithm.run(96)
    print([list(each.objectives) for each in algorithm.result], random.random())


if __name__ == "__main__":
    main()
