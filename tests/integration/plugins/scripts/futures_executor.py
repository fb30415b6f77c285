"""concurrent.futures: `Executor.map`, `submit`, `wait`, `as_completed`."""

import concurrent.futures

import hooks


def twice(x):
    hooks.mark()
    return 2 * x


def main():
    with hooks.executor() as executor:
        print(list(executor.map(twice, range(20))))
        asked = [executor.submit(twice, x) for x in range(20)]
        done, late = concurrent.futures.wait(asked)
        print(sorted(each.result() for each in done), late)
        asked = [executor.submit(twice, x) for x in range(10)]
        print(sorted(each.result() for each in concurrent.futures.as_completed(asked)))


if __name__ == "__main__":
    main()
