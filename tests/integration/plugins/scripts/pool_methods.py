"""multiprocessing: the methods of `Pool`."""

import hooks


def power(x, n=2):
    hooks.mark()
    return x**n


def main():
    with hooks.pool() as pool:
        print(pool.map(power, range(20)))
        print(list(pool.imap(power, iter(range(20)))))
        print(sorted(pool.imap_unordered(power, range(20))))
        print(pool.starmap(power, [(x, 3) for x in range(20)]))


if __name__ == "__main__":
    main()
