"""What the golden run with checkpoints ran; it must stay as it is."""

import sys
import time
from pathlib import Path

from resilient_scoop import checkpoint, futures

GENERATIONS = 30


def square(number: int) -> int:
    return number * number


def slow(number: int) -> int:
    if number > 0 and not Path(sys.argv[1]).exists():
        time.sleep(600)
    return number


def main() -> None:
    print("begin", flush=True)
    with checkpoint.durable(generation=0, sums=list, large=lambda: b"x" * 700_000) as state:
        while state.generation < GENERATIONS:
            numbers = range(state.generation, state.generation + 5)
            state.sums.append(sum(futures.map(square, numbers)))
            first = next(futures.as_completed([futures.submit(square, n) for n in range(3)]))
            state.sums.append(int(first.result() < 9))
            if state.generation == GENERATIONS // 2:
                print("half", flush=True)
                state.sums.append(sum(futures.map(slow, range(4))))
            state.generation += 1
            state.commit()
    print(sum(state.sums), len(state.large))


if __name__ == "__main__":
    main()
