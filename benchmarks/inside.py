"""The script that is measured: `inside.py PEER CASE PART FOLDER`, started as its peer requires.

Its last line is `FIGURES` and a JSON object.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from benchmarks.grids import OPEN
from benchmarks.measures import Scale, measure


def main() -> None:
    """Take one measure of one peer."""
    peer, case, part, folder = sys.argv[1:]
    with OPEN[peer]() as grid:
        measured = measure(case, grid, Scale(peer, float(part), Path(folder)))
        print("FIGURES", json.dumps(measured), flush=True)


if __name__ == "__main__":
    main()
