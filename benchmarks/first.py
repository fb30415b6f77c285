"""A script as short as scripts are: `first.py PEER` prints one submit's result."""

from __future__ import annotations

import sys

from benchmarks.grids import OPEN
from benchmarks.load import noop

if __name__ == "__main__":
    with OPEN[sys.argv[1]]() as grid:
        print("FIRST", grid.call(noop, 42), flush=True)
