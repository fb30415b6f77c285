"""cma: `fmin2(None, parallel_objective=...)` of `resilient_scoop.contrib.cma`."""

import cma
import hooks


def loss(x):
    hooks.mark()
    return float(sum(each**2 for each in x) + x[0])


def serial(xs):
    return [loss(x) for x in xs]


def main():
    if hooks.BUILTIN:
        objective = serial
    else:
        from resilient_scoop.contrib.cma import parallel_objective

        objective = parallel_objective(loss)
    best, strategy = cma.fmin2(
        None, 4 * [1.0], 0.5, {"seed": 4, "maxiter": 8, "verbose": -9, "verb_log": 0},
        parallel_objective=objective,
    )  # fmt: skip
    print(best.tolist(), strategy.result.fbest)


if __name__ == "__main__":
    main()
