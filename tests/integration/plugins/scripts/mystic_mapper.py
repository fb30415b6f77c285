"""mystic: `solver.SetMapper` with the map of `resilient_scoop.contrib.mystic`."""

import hooks
import mystic.solvers
import mystic.termination
from mystic.tools import random_seed


def loss(x):
    hooks.mark()
    return sum((each - 1.5) ** 2 for each in x)


def serial(function, *xs, **ignored):
    return list(map(function, *xs))


def main():
    random_seed(9)
    if hooks.BUILTIN:
        mapper = serial
    else:
        from resilient_scoop.contrib.mystic import mapper
    solver = mystic.solvers.DifferentialEvolutionSolver2(3, 9)
    solver.SetMapper(mapper)
    solver.SetRandomInitialPoints([-4] * 3, [4] * 3)
    solver.SetEvaluationLimits(generations=8)
    solver.Solve(loss, mystic.termination.VTR(1e-12), disp=0)
    print(list(map(float, solver.bestSolution)), float(solver.bestEnergy))


if __name__ == "__main__":
    main()
