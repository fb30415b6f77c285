"""The script of the generations case: `tiny.py FOLDER GENERATIONS KIND`, KIND `durable` or `plain`.

A hundred thousand generations of two no-op calls each; the result of one generation is the input of
the next, and the script draws random numbers. When all are done, it says so and waits until the
file `go` exists (before the kill it never does). Then it makes a new call, which writes its time to
`stamps`, and prints its result.
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.load import noop, stamp
from resilient_scoop import checkpoint, futures

_PRIME = 2**61 - 1


def generation(state: int) -> int:
    """Return the next state."""
    first, second = futures.map(noop, (state, random.getrandbits(32)))
    return int(first * 31 + second) % _PRIME


def plain(count: int, last: Callable[[], None]) -> int:
    """Run all generations without checkpoints."""
    state = 1
    for _ in range(count):
        state = generation(state)
    last()
    return state


def durable(count: int, last: Callable[[], None]) -> int:
    """Run all generations in a checkpoint block with `every_s="auto"`."""
    with checkpoint.durable(state=1, gen=0) as s:
        while s.gen < count:
            s.state = generation(s.state)
            s.gen += 1
            s.commit("auto")
        last()
        return int(s.state)


def main() -> None:
    """Run one kind."""
    folder, count = Path(sys.argv[1]), int(sys.argv[2])

    def last() -> None:
        (folder / "journaled").touch()
        while not (folder / "go").exists():
            time.sleep(0.01)
        list(futures.map(stamp, [str(folder / "stamps")]))

    (folder / "began").touch()
    kinds = {"durable": durable, "plain": plain}
    print(kinds[sys.argv[3]](count, last))


if __name__ == "__main__":
    main()
