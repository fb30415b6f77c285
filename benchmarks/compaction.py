"""Measures how long commits wait while their journal is compacted.

It makes a journal that is mostly free space and writes to it as a busy run does; for each turn, it
measures how long the turn waits for its commit, before and during the compaction.

    python -m benchmarks.compaction --megabytes 1000 --folder /var/tmp
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
import threading
import time
from pathlib import Path
from statistics import median

from resilient_scoop.core.events import Erase, Put, Table
from resilient_scoop.journal.committer import Committer
from resilient_scoop.journal.journal import Journal

RECORD_BYTES = 1900  # two fit into a page
_LIMIT_S = 300.0
_BEFORE_S = 3.0


def fill(journal: Journal, size_bytes: int) -> None:
    """Fill the journal to that size, half of it with live records, then free most of the rest."""
    per_turn = 2000
    turns = size_bytes // (per_turn * 2048)
    for turn in range(turns):
        value = os.urandom(RECORD_BYTES)
        journal.commit([Put(Table.LOG, b"%08d.%06d" % (turn, i), value) for i in range(per_turn)])
    for turn in range(0, turns, 2):
        journal.commit([Erase(Table.LOG, b"%08d" % turn)])
    journal.commit([Erase(Table.LOG, b"%08d" % 1), Erase(Table.LOG, b"%08d" % 3)])


class Load:
    """Turns of ten small records, one after the other; each wait in milliseconds."""

    def __init__(self, journal: Journal, pause_s: float) -> None:
        self._journal = journal
        self._pause_s = pause_s
        self._news = threading.Semaphore(0)
        self._committer = Committer(journal, self._news.release, journal.tend)
        self._turn = 0

    def turn(self) -> float:
        """Put one turn, wait until it is durable, and return how long that took."""
        self._turn += 1
        records = [
            Put(Table.LOG, b"%08d.%06d" % (10**7 + self._turn, i), b"v" * 200) for i in range(10)
        ]
        began = time.perf_counter()
        self._committer.put(
            self._turn, [*records, Erase(Table.LOG, b"%08d" % (10**7 + self._turn - 50))]
        )
        while self._committer.committed < self._turn:
            self._news.acquire()
        waited_ms = 1000 * (time.perf_counter() - began)
        time.sleep(self._pause_s)
        return waited_ms

    def close(self) -> None:
        """End the committer."""
        self._committer.close()


def measure(folder: Path, size_bytes: int, pause_s: float = 0.001) -> dict[str, float]:
    """Return the figures of one compaction."""
    journal = Journal.create(folder / "journal", b"r" * 16)
    fill(journal, size_bytes)
    least, journal.upkeep.bytes_min = journal.upkeep.bytes_min, 1 << 62
    before_bytes = journal.size_bytes()
    load = Load(journal, pause_s)
    before: list[float] = []
    until = time.monotonic() + _BEFORE_S
    while time.monotonic() < until:
        before.append(load.turn())
    journal.upkeep.bytes_min = least
    began = time.monotonic()
    during: list[float] = []
    while not journal.data:
        during.append(load.turn())
        if time.monotonic() - began > _LIMIT_S:
            raise TimeoutError(f"no compaction within {_LIMIT_S} s: {list(journal.notes)}")
    took_s = time.monotonic() - began
    load.close()
    after_bytes = journal.size_bytes()
    journal.close(clean=True)
    return {
        "before_mb": round(before_bytes / 1e6), "after_mb": round(after_bytes / 1e6),
        "took_s": round(took_s, 2), "turns": len(during),
        **_spread("before", before), **_spread("during", during),
    }  # fmt: skip


def _spread(name: str, waits_ms: list[float]) -> dict[str, float]:
    ordered = sorted(waits_ms)
    return {
        f"{name}_p50_ms": round(median(ordered), 2),
        f"{name}_p99_ms": round(ordered[int(0.99 * len(ordered))], 2),
        f"{name}_max_ms": round(ordered[-1], 2),
    }


def main() -> None:
    """Measure and print one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=200)
    parser.add_argument("--folder", type=Path, default=None, help="on the disk to be measured")
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="rscoop-compaction-", dir=given.folder))
    try:
        print(json.dumps(measure(folder, given.megabytes * 1_000_000)))
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
