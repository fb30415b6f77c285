"""gplearn: `SymbolicRegressor(n_jobs=2)` in `joblib.parallel_config("rscoop")`."""

import warnings

import gplearn.functions
import gplearn.genetic
import hooks
import joblib
import numpy as np


def square(x):
    hooks.mark()
    return x * x


def main():
    warnings.simplefilter("ignore")
    X = np.linspace(-1, 1, 40).reshape(-1, 2)
    y = X[:, 0] ** 2 - X[:, 1] + 0.5
    function = gplearn.functions._Function(function=square, name="square", arity=1)
    with joblib.parallel_config(hooks.joblib_backend()):
        model = gplearn.genetic.SymbolicRegressor(
            population_size=40, generations=4, random_state=3, n_jobs=4,
            function_set=("add", "sub", "mul", function),
        ).fit(X, y)  # fmt: skip
    print(model._program, model._program.raw_fitness_)


if __name__ == "__main__":
    main()
