"""scipy: `differential_evolution(workers=futures.map)`."""

import hooks
from scipy.optimize import differential_evolution, rosen


def loss(x):
    hooks.mark()
    return rosen(x)


def main():
    done = differential_evolution(
        loss, [(-2, 2)] * 2, maxiter=6, popsize=6, seed=1, polish=False, updating="deferred",
        workers=hooks.mapper(),
    )  # fmt: skip
    print(done.x.tolist(), done.fun, done.nfev)


if __name__ == "__main__":
    main()
