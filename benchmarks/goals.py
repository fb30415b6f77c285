"""What the figures mean: their titles, whether more is better, and the goals for this runtime."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

Median = Callable[[str, str], float]
"""Median of a figure by (peer, key); raises KeyError where it was not measured."""
_PPE, _OURS = "ppe", "ours"


@dataclass(frozen=True, slots=True)
class Goal:
    """A limit for our median, in words and as a function of the medians of this session."""

    text: str
    limit: Callable[[Median], float]


@dataclass(frozen=True, slots=True)
class Row:
    """One figure: its key is `case.figure`."""

    key: str
    title: str
    digits: int = 2
    at_least: bool = True  # more is better
    goals: tuple[Goal, ...] = ()
    only_ours: bool = False
    sized: bool = False  # is valid only with the full amount of work

    @property
    def case(self) -> str:
        """The name of the case that measures the figure."""
        return self.key.partition(".")[0]


def fixed(limit: float, unit: str = "") -> Goal:
    """Return a goal that depends on no other figure."""
    return Goal(f"{limit:,g}{unit}", lambda _: limit)


def _latency(median: Median) -> float:
    return median(_PPE, "latency.p50_ms") + median(_OURS, "latency.commit_p50_ms") + 0.4


ROWS: Final = (
    Row(
        "submits.per_s", "no-op submits /s", 0,
        goals=(fixed(15_000), Goal("2 x ppe", lambda m: 2 * m(_PPE, "submits.per_s"))),
    ),
    Row("map.per_s", "no-op map, nothing tuned, items/s", 0, goals=(fixed(200_000),)),
    Row("map.tuned_per_s", "no-op map, chunks tuned, items/s", 0),
    Row(
        "latency.p50_ms", "submit().result() p50 ms", 3, at_least=False,
        goals=(Goal("ppe + commit + 0.4", _latency),),
    ),
    Row("latency.p99_ms", "submit().result() p99 ms", 3, at_least=False),
    Row("latency.commit_p50_ms", "one journal commit p50 ms", 3, at_least=False, only_ours=True),
    Row("efficiency.at_1_ms", "efficiency, spin 1 ms", 3, goals=(fixed(0.82),)),
    Row("efficiency.at_10_ms", "efficiency, spin 10 ms", 3, goals=(fixed(0.96),)),
    Row("efficiency.at_100_ms", "efficiency, spin 100 ms", 3, goals=(fixed(0.99),)),
    Row("efficiency_cpu.at_1_ms", "efficiency, 1 ms of CPU", 3),
    Row("efficiency_cpu.at_10_ms", "efficiency, 10 ms of CPU", 3),
    Row("efficiency_cpu.at_100_ms", "efficiency, 100 ms of CPU", 3),
    Row("efficiency_sleep.at_1_ms", "efficiency, sleep 1 ms", 3),
    Row("efficiency_sleep.at_10_ms", "efficiency, sleep 10 ms", 3),
    Row("efficiency_sleep.at_100_ms", "efficiency, sleep 100 ms", 3),
    Row("ea.efficiency", "EA loop, 10 x 200 x 2 ms", 3, goals=(fixed(0.93),)),
    Row("arrays.in_mb_s", "8 MB arrays in, MB/s", 0, goals=(fixed(500),)),
    Row(
        "arrays.out_mb_s", "8 MB arrays out, MB/s", 0,
        goals=(Goal("0.8 x disk", lambda m: 0.8 * m(_OURS, "arrays.disk_mb_s")),),
    ),
    Row("arrays.disk_mb_s", "8 MB files, synced, MB/s", 0, only_ours=True),
    Row("nested.took_s", "nested maps, 16 x 64, s", 3, at_least=False, sized=True),
    Row(
        "million.took_s", "a million no-ops in a map, s", 2, at_least=False, sized=True,
        goals=(fixed(8),),
    ),
    Row(
        "million.broker_mb", "  broker's peak, MB", 0, at_least=False, sized=True,
        goals=(fixed(150),),
        only_ours=True,
    ),
    Row("million.origin_mb", "  origin's peak, MB", 0, at_least=False, sized=True, only_ours=True),
    Row("first.took_s", "command to first result, s", 3, at_least=False, goals=(fixed(0.8),)),
    Row("idle.uss_mb", "idle memory (USS), MB", 1, at_least=False, goals=(fixed(120),)),
    Row("idle.pss_mb", "idle memory (PSS), MB", 1, at_least=False),
    Row("idle.processes", "  processes", 0, at_least=False),
    Row(
        "resume.took_s", "resume, 200,000 items, to new work, s", 2, at_least=False, sized=True,
        goals=(fixed(5),), only_ours=True,
    ),
)  # fmt: skip
CASES: Final = tuple(dict.fromkeys(row.case for row in ROWS))
WHOLE: Final = frozenset({"first", "idle"})
"""Cases that `--quick` does not make smaller."""
CUT_SHORT: Final = frozenset({"first", "idle", "resume"})
"""Cases that kill the run when they have seen what they wanted; its notes say so."""
LEFT_OUT: Final[dict[str, frozenset[str]]] = {
    "nested": frozenset({"ppe", "pool", "loky", "parsl"}),  # cannot do it
    "million": frozenset({"dask", "ray", "parsl"}),  # have no chunks, so this would take minutes
    "resume": frozenset({"ppe", "pool", "joblib", "loky", "dask", "ray", "parsl", "scoop"}),
}
"""Peers that a case has nothing to ask of."""
