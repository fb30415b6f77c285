"""Measurements inside a script: each takes an open grid and returns its figures.

Names of figures end in their units (`_s`, `_ms`, `_mb` of 10**6 bytes, `per_s`); efficiency is
ideal time over real time. Only the measured calls are between two readings of the clock.
"""

from __future__ import annotations

import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks import load
from benchmarks.grids import WORKERS, Fn, Grid

Measured = dict[str, float]
_SPANS_MS: Final = (1.0, 10.0, 100.0)
_ARRAY_MB: Final = load.ARRAY_ITEMS * 8 / 1e6
_COMMITS: Final = 200
_SLOW: Final = {"joblib": 4, "loky": 2, "ray": 5, "parsl": 10, "dask": 10, "scoop": 5}
_SLOW_MAP: Final = {"ppe": 10, "loky": 10, "dask": 20, "ray": 20, "parsl": 40, "scoop": 20}
"""Peers that would take minutes are given that many times fewer items: rates are compared."""


@dataclass(frozen=True, slots=True)
class Scale:
    """The amount of work; `part` below 1 is for a quick look."""

    peer: str
    part: float
    folder: Path  # on the disk whose speed counts

    def items(self, whole: int, slow: dict[str, int] | None = None) -> int:
        """Return the number of items for a full amount of `whole`."""
        return max(2, int(whole * self.part / (slow or {}).get(self.peer, 1)))


def _timed(work: Callable[[], Any]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _warm(grid: Grid, function: Fn, items: Sequence[Any]) -> None:
    """Wait until the workers have loaded the function, before time is measured."""
    list(grid.map(function, items))


def submits(grid: Grid, scale: Scale) -> Measured:
    """Submit one by one, then await all."""
    count = scale.items(10_000, _SLOW)
    return {"per_s": count / _timed(lambda: grid.submit_all(load.noop, range(count)))}


def noop_map(grid: Grid, scale: Scale) -> Measured:
    """Map without tuning, and with tuned chunks if the peer has chunks."""
    count = scale.items(200_000, _SLOW_MAP)
    measured = {"per_s": count / _timed(lambda: list(grid.map(load.noop, range(count))))}
    tuned = grid.tuned
    if tuned is not None:
        count = scale.items(200_000)
        chunk = max(1, count // (4 * WORKERS))
        measured["tuned_per_s"] = count / _timed(
            lambda: list(tuned(load.noop, range(count), chunk))
        )
    return measured


def latency(grid: Grid, scale: Scale) -> Measured:
    """Submit one call and await it, repeatedly; our goal depends on the time of a commit."""
    spans = [_timed(lambda: grid.call(load.noop, 1)) * 1000 for _ in range(scale.items(500))]
    cuts = statistics.quantiles(spans, n=100)
    measured = {"p50_ms": statistics.median(spans), "p99_ms": cuts[98]}
    if scale.peer == "ours":
        measured["commit_p50_ms"] = statistics.median(commits_ms(scale.folder))
    return measured


def commits_ms(folder: Path) -> list[float]:
    """Return how long commits of a single record take in a fresh journal."""
    from resilient_scoop.core.events import Put, Table
    from resilient_scoop.journal.journal import Journal

    home = Path(tempfile.mkdtemp(dir=folder))
    journal = Journal.create(home / "journal", os.urandom(16))
    try:
        return [
            1000
            * _timed(
                lambda n=number: journal.commit(  # type: ignore[misc]
                    [Put(Table.LOG, b"p" * 16 + n.to_bytes(8, "big"), b"v" * 100)]
                )
            )
            for number in range(_COMMITS)
        ]
    finally:
        journal.close(clean=True)
        shutil.rmtree(home)


def _efficiency(grid: Grid, scale: Scale, function: Fn) -> Measured:
    measured = {}
    for span_ms in _SPANS_MS:
        count = max(WORKERS, scale.items(int(4000 / span_ms)))
        real_s = _timed(lambda s=span_ms, n=count: list(grid.map(function, [s] * n)))  # type: ignore[misc]
        measured[f"at_{span_ms:.0f}_ms"] = count * span_ms / 1000 / WORKERS / real_s
    return measured


def efficiency(grid: Grid, scale: Scale) -> Measured:
    """Measure items that keep a core busy for a time."""
    return _efficiency(grid, scale, load.spin)


def efficiency_cpu(grid: Grid, scale: Scale) -> Measured:
    """Measure items that need a fixed amount of CPU time, so the CPU time of the runtime counts too."""
    return _efficiency(grid, scale, load.burn)


def efficiency_sleep(grid: Grid, scale: Scale) -> Measured:
    """Measure items that only wait."""
    return _efficiency(grid, scale, load.nap)


def evolution(grid: Grid, scale: Scale) -> Measured:
    """Measure ten generations of 200 evaluations of 2 ms; each generation is a map."""
    generations = scale.items(10)
    people = [[float(gene + who) for gene in range(30)] for who in range(200)]
    _warm(grid, load.evaluate, people[:20])

    def evolve() -> None:
        for _ in range(generations):
            scores = list(grid.map(load.evaluate, people))
            people.sort(key=lambda one: scores[0][0] + one[0])

    return {"efficiency": generations * len(people) * 0.002 / WORKERS / _timed(evolve)}


def arrays(grid: Grid, scale: Scale) -> Measured:
    """Send arrays of 8 MB and return as many, each with different content."""
    count = scale.items(40)
    given = [load.filled(number) for number in range(-1, -1 - count, -1)]
    _warm(grid, load.filled, range(1000, 1004))
    measured = {"in_mb_s": count * _ARRAY_MB / _timed(lambda: list(grid.map(load.total, given)))}
    given.clear()

    def take() -> None:
        for number, array in enumerate(grid.map(load.filled, range(count))):
            assert array[-1] == number, "an array came back wrong"

    measured["out_mb_s"] = count * _ARRAY_MB / _timed(take)
    if scale.peer == "ours":
        measured["disk_mb_s"] = disk_mb_s(scale.folder, count)
    return measured


def disk_mb_s(folder: Path, count: int) -> float:
    """Return the rate at which files of 8 MB are written, each synced."""
    home = Path(tempfile.mkdtemp(dir=folder))
    data = [load.filled(10_000 + number).tobytes() for number in range(4)]

    def write() -> None:
        for number in range(count):
            with (home / str(number)).open("wb", buffering=0) as file:
                file.write(data[number % 4])
                os.fsync(file.fileno())

    try:
        return count * _ARRAY_MB / _timed(write)
    finally:
        shutil.rmtree(home)


def nested(grid: Grid, scale: Scale) -> Measured:
    """Measure 16 parents, each with a map of 64 items."""
    function = grid.nested
    if function is None:
        return {}
    parents = range(scale.items(16))
    return {"took_s": _timed(lambda: list(grid.map(function, parents)))}


def million(grid: Grid, scale: Scale) -> Measured:
    """Measure a million items in one map; peers use tuned chunks (their defaults take minutes)."""
    count = scale.items(1_000_000)
    tuned = grid.tuned
    if tuned is None:
        return {"took_s": _timed(lambda: _exhaust(grid.map(load.noop, range(count))))}
    chunk = count // (4 * WORKERS)
    return {"took_s": _timed(lambda: _exhaust(tuned(load.noop, range(count), chunk)))}


def _exhaust(values: Any) -> None:
    for _ in values:
        pass


def idle(grid: Grid, scale: Scale) -> Measured:
    """Let both workers work once, print that, and stay idle while the memory is measured from outside."""
    del scale
    _warm(grid, load.spin, [1.0] * 100)
    print("IDLE", flush=True)
    time.sleep(4)
    return {}


MEASURES: Final[dict[str, Callable[[Grid, Scale], Measured]]] = {
    "submits": submits, "map": noop_map, "latency": latency, "efficiency": efficiency,
    "efficiency_cpu": efficiency_cpu, "efficiency_sleep": efficiency_sleep, "ea": evolution,
    "arrays": arrays, "nested": nested, "million": million, "idle": idle,
}  # fmt: skip


def measure(name: str, grid: Grid, scale: Scale) -> Measured:
    """Warm the grid up and take one measurement."""
    _warm(grid, load.noop, range(100))
    return MEASURES[name](grid, scale)
