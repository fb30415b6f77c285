"""pyswarms: an objective of the whole swarm, which maps over the particles."""

import logging

import hooks
import numpy as np
import pyswarms


def loss(x):
    hooks.mark()
    return float(np.sum(x**2))


def swarm_loss(xs):
    return np.array(list(hooks.mapper()(loss, xs)))


def main():
    logging.disable()
    np.random.seed(3)
    optimizer = pyswarms.single.GlobalBestPSO(10, 2, options={"c1": 0.5, "c2": 0.3, "w": 0.9})
    value, place = optimizer.optimize(swarm_loss, iters=8, verbose=False)
    print(value, place.tolist())


if __name__ == "__main__":
    main()
