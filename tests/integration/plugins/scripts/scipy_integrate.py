"""scipy: `quad_vec(workers=futures.map)` and `cubature`."""

import hooks
import numpy as np
from scipy.integrate import cubature, quad_vec


def peak(x):
    hooks.mark()
    return np.array([1 / (1 + 400 * (x - 0.3) ** 2), np.sqrt(x)])


def bell(x):
    hooks.mark()
    return np.exp(-np.sum(25 * x**2, axis=-1))


def main():
    value, error = quad_vec(peak, 0, 1, epsabs=1e-2, workers=hooks.mapper())
    print(value.tolist(), error)
    print(float(cubature(bell, [-1, -1], [1, 1], rtol=1e-3, workers=hooks.mapper()).estimate))


if __name__ == "__main__":
    main()
