"""dask: `compute(scheduler=executor)`."""

import dask
import hooks


@dask.delayed(pure=True)
def inc(x):
    hooks.mark()
    return x + 1


@dask.delayed(pure=True)
def total(xs):
    hooks.mark()
    return sum(xs)


def main():
    graph = total([total([inc(i), inc(i + 1)]) for i in range(12)])
    with hooks.executor() as executor:
        print(graph.compute(scheduler=executor))


if __name__ == "__main__":
    main()
