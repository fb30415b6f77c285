"""A mixture: large values, errors, calls that must not be repeated, order of completion, cancellation."""

from __future__ import annotations

import random
import time
from concurrent.futures import CancelledError
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray

from chaos.workloads.ledger import ONCE, running
from resilient_scoop import futures, shared
from resilient_scoop.errors import WorkerLostError

ROUNDS, ITEMS, BIG = 3, 12, 200_000


def big(path: str, scale: float) -> NDArray[np.float64]:
    """Return an array of 1.6 MB: it travels as a file."""
    with running(path):
        time.sleep(0.02)
        drawn: NDArray[np.float64] = np.random.random(BIG)  # noqa: NPY002 - the global stream is what is tested
        return scale * drawn


def fails(path: str, number: int) -> int:
    """Return the number, or raise an error if it is odd."""
    with running(path):
        time.sleep(0.02)
        if number % 2:
            raise ValueError(f"{number} is odd")
        return number


def send(path: str) -> str:
    """Stand for a letter that must not be sent twice."""
    with running(path, ONCE):
        time.sleep(0.05)
        return "sent"


def square(path: str, number: int) -> int:
    """Return the square after a random time."""
    with running(path):
        time.sleep(random.random() * 0.08)
        return number * number


def one_round(first_call: int) -> str:
    """Make five calls, of which the first has number `first_call`; return their results."""
    calls = [first_call + step for step in range(5)]
    paths = [[f"0.{call}[{index}]" for index in range(ITEMS)] for call in calls]
    arrays = futures.map(big, paths[0][:4], [shared.getConst("scale")] * 4)
    failing = futures.submit(fails, paths[1][0], 3)
    letter = futures.options(idempotent=False).submit(send, paths[2][0])
    squares = sum(futures.map_as_completed(square, paths[3], range(ITEMS)))
    unwanted = futures.submit(square, paths[4][0], ITEMS)
    cancelled = unwanted.cancel()
    # its worker was killed during the call, so it may have been sent
    with suppress(WorkerLostError):
        assert letter.result() == "sent"
    try:
        assert unwanted.result() == ITEMS * ITEMS
        assert not cancelled
    except CancelledError:
        assert cancelled
    checksum = sum(float(array.sum()) for array in arrays)
    return f"{checksum:.6f} {failing.exception()} {squares} {futures.rng().random()}"


def main() -> None:
    """Run all rounds; print a line for each."""
    shared.setConst(scale=2.0)
    for number in range(ROUNDS):
        print(f"round {number}: {one_round(5 * number)}", flush=True)
    print(f"end {random.random()}")


if __name__ == "__main__":
    main()
