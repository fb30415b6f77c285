"""scipy: `brute(workers=futures.map)`, then `shgo`."""

import hooks
from scipy.optimize import brute, shgo


def loss(x):
    hooks.mark()
    return float((x[0] - 0.3) ** 2 + abs(x[1] - 0.2) + x[0] * x[1])


def main():
    grid = (slice(-1, 1, 0.25), slice(-1, 1, 0.25))
    print(brute(loss, grid, finish=None, workers=hooks.mapper()).tolist())
    done = shgo(loss, [(-1, 1)] * 2, n=32, sampling_method="sobol", workers=hooks.mapper())
    print(done.x.tolist(), done.fun)


if __name__ == "__main__":
    main()
