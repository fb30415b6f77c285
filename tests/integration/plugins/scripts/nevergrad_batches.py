"""nevergrad: `minimize(executor=..., batch_mode=True)`."""

import hooks
import nevergrad as ng


def loss(x):
    hooks.mark()
    return float(((x - 0.5) ** 2).sum())


def main():
    optimizer = ng.optimizers.DE(parametrization=ng.p.Array(shape=(2,)), budget=48, num_workers=6)
    optimizer.parametrization.random_state.seed(12)
    if hooks.BUILTIN:
        best = optimizer.minimize(loss, executor=hooks.executor(), batch_mode=True)
    else:
        from resilient_scoop.contrib.nevergrad import FuturesExecutor

        best = optimizer.minimize(loss, executor=FuturesExecutor(), batch_mode=True)
    print(best.value.tolist())


if __name__ == "__main__":
    main()
