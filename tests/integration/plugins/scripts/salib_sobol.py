"""SALib: samples evaluated with `futures.map`, analyzed by Sobol indices."""

import hooks
import numpy as np
from SALib.analyze import sobol
from SALib.sample import sobol as sample


def ishigami(x):
    hooks.mark()
    return float(np.sin(x[0]) + 7 * np.sin(x[1]) ** 2 + 0.1 * x[2] ** 4 * np.sin(x[0]))


def main():
    problem = {"num_vars": 3, "names": ["a", "b", "c"], "bounds": [[-3.14, 3.14]] * 3}
    points = sample.sample(problem, 16, calc_second_order=False, seed=1)
    values = np.array(list(hooks.mapper()(ishigami, points)))
    found = sobol.analyze(problem, values, calc_second_order=False, seed=2)
    print(found["S1"].tolist())


if __name__ == "__main__":
    main()
