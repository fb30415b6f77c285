"""scipy: derivatives of `minimize` and `least_squares`, `workers=futures.map`."""

import hooks
import numpy as np
from scipy.optimize import least_squares, minimize


def loss(x):
    hooks.mark()
    return float((x[0] - 1) ** 2 + (x[1] - x[0] ** 2) ** 2 + x[2] ** 2)


def residuals(x):
    hooks.mark()
    t = np.linspace(0, 1, 8)
    return x[0] * np.exp(-x[1] * t) - 2 * np.exp(-0.7 * t)


def main():
    done = minimize(
        loss, [0.5, 0.5, 0.5], method="BFGS", options={"maxiter": 6, "workers": hooks.mapper()}
    )
    print(done.x.tolist(), done.nit)
    print(least_squares(residuals, [1.0, 1.0], workers=hooks.mapper(), max_nfev=6).x.tolist())


if __name__ == "__main__":
    main()
