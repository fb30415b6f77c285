"""The script of the resume case: `long.py FOLDER MAPS ITEMS`.

It computes maps of no-ops, prints that they are done, and waits until the file `go` exists (before
the kill it never does). Then it makes a new call, which writes its time to `stamps`.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from benchmarks.load import noop, stamp
from resilient_scoop import futures

if __name__ == "__main__":
    folder, maps, items = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    for _ in range(maps):
        for _value in futures.map(noop, range(items)):
            pass
    (folder / "journaled").touch()
    while not (folder / "go").exists():
        time.sleep(0.01)
    list(futures.map(stamp, [str(folder / "stamps")]))
