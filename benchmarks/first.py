"""A very short script: `first.py PEER` prints the result of one submit."""

from __future__ import annotations

import sys

from benchmarks.grids import OPEN
from benchmarks.load import noop

if __name__ == "__main__":
    with OPEN[sys.argv[1]]() as grid:
        print("FIRST", grid.call(noop, 42), flush=True)
