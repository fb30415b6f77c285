"""bayesian-optimization: `suggest` and `register` around `futures.map`."""

import warnings

import hooks
from bayes_opt import BayesianOptimization


def score(point):
    hooks.mark()
    return -((point["x"] - 1) ** 2) - (point["y"] + 0.5) ** 2


def main():
    warnings.simplefilter("ignore")
    optimizer = BayesianOptimization(None, {"x": (-3, 3), "y": (-3, 3)}, random_state=1, verbose=0)
    for _ in range(6):
        rows = [optimizer.space.random_sample() for _ in range(6)]
        points = [optimizer.space.array_to_params(row) for row in rows]
        for point, value in zip(points, hooks.mapper()(score, points), strict=True):
            optimizer.register(params=point, target=value)
    best = optimizer.max
    print(best["target"], {key: float(value) for key, value in best["params"].items()})


if __name__ == "__main__":
    main()
