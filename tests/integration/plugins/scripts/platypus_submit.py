"""platypus: `PoolEvaluator(pool)`."""

import random

import hooks
from platypus import GDE3, PoolEvaluator, Problem, Real


def schaffer(x):
    hooks.mark()
    return [x[0] ** 2, (x[0] - 2) ** 2]


def main():
    random.seed(2)
    problem = Problem(1, 2, function=schaffer)
    problem.types[:] = Real(-10, 10)
    with hooks.pool() as pool:
        algorithm = GDE3(problem, population_size=12, evaluator=PoolEvaluator(pool))
        algorithm.run(72)
    print(sorted(list(each.objectives) for each in algorithm.result), random.random())


if __name__ == "__main__":
    main()
