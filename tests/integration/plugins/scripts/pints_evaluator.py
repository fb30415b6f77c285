"""pints: an optimizer's ask and tell around `futures.map`."""

import hooks
import numpy as np
import pints


def loss(x):
    hooks.mark()
    return float((x[0] - 1) ** 2 + (x[1] + 2) ** 2)


def main():
    np.random.seed(4)
    optimizer = pints.XNES(np.array([0.0, 0.0]), np.array([1.0, 1.0]))
    for _ in range(10):
        optimizer.tell(list(hooks.mapper()(loss, list(optimizer.ask()))))
    print(list(map(float, optimizer.x_best())), float(optimizer.f_best()))


if __name__ == "__main__":
    main()
