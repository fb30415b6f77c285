"""Two hundred calls of 50 ms: the cost of a death is measured with it."""

from __future__ import annotations

import time

from chaos.workloads.ledger import running
from resilient_scoop import futures

ITEMS, ITEM_S = 200, 0.05


def work(path: str, number: int) -> int:
    """Return the number after 50 ms."""
    with running(path):
        time.sleep(ITEM_S)
        return number


def main() -> None:
    """Map; print a line before and one after."""
    paths = [f"0.0[{index}]" for index in range(ITEMS)]
    print("begin", flush=True)
    assert sum(futures.map(work, paths, range(ITEMS))) == sum(range(ITEMS))
    print("done", flush=True)


if __name__ == "__main__":
    main()
