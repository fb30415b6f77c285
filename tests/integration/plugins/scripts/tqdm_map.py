"""tqdm: `tqdm(futures.map(f, xs), total=n)`: the bar moves with the results."""

import io

import hooks
from tqdm import tqdm


def cube(x):
    hooks.mark()
    return x**3


def main():
    bar = io.StringIO()
    print(list(tqdm(hooks.mapper()(cube, range(60)), total=60, file=bar, mininterval=0)))
    print("100%" in bar.getvalue())


if __name__ == "__main__":
    main()
