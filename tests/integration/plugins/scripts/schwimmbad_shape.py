"""schwimmbad: code written for its pools, `pool.map(f, tasks, callback=)`."""

import hooks
import schwimmbad


def work(task):
    hooks.mark()
    return task[0] * task[1]


def main():
    pool = schwimmbad.SerialPool() if hooks.BUILTIN else hooks.pool()
    seen = []
    print(list(pool.map(work, [(i, i + 1) for i in range(40)], callback=seen.append)))
    print(len(seen))
    pool.close()


if __name__ == "__main__":
    main()
