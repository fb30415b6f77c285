"""Kills loops with checkpoints at random points: is the answer the same, and how much time is lost?

Each run is killed once (all its processes at the same moment, as by a power cut), and resumed with
a command. The cost of a kill is the time of both commands together minus that of an undisturbed
run: the work that is repeated, and another start.
"""

from __future__ import annotations

import random
import statistics
from dataclasses import dataclass, field
from pathlib import Path

from chaos import rounds
from chaos.nemesis import Kill, Moment
from chaos.processes import Role
from chaos.rounds import Reference, Result

CALM_RUNS = 5
_TRIES = 3  # of a kill that comes after the run has ended


@dataclass(slots=True)
class Campaign:
    """The runs of one kind of loop."""

    name: str
    calm_s: list[float]  # the undisturbed runs
    results: list[Result] = field(default_factory=list)

    def lost_s(self) -> list[float]:
        """Return the cost of each kill, the lowest first."""
        calm_s = statistics.median(self.calm_s)
        return sorted(each.lives_s - calm_s for each in self.results)

    def __str__(self) -> str:
        lost = self.lost_s()
        bad = sum(bool(each.violations) for each in self.results)
        return (
            f"{self.name:9s} undisturbed {statistics.median(self.calm_s):.2f} s; "
            f"{len(lost)} kills, {bad} with violations; lost per kill: median "
            f"{statistics.median(lost):.2f} s, p99 {percentile(lost, 0.99):.2f} s, "
            f"at most {lost[-1]:.2f} s"
        )


def percentile(ordered: list[float], share: float) -> float:
    """Return a percentile (nearest rank)."""
    rank = -int(-share * len(ordered) // 1)
    return ordered[max(0, rank - 1)]


def play(name: str, kills: int, seed: int, kept: Path) -> Campaign:
    """Run one kind of loop several times without a kill, then with one kill each; keep what fails."""
    script = rounds.script_of(name)
    calm = [rounds.measure(script) for _ in range(CALM_RUNS)]
    campaign = Campaign(name, [each.duration_s for each in calm])
    reference = min(calm, key=lambda each: each.duration_s)
    for number in range(seed, seed + kills):
        result = _kill_once(name, number, reference, kept)
        campaign.results.append(result)
        print(result, f"({result.lives_s:.2f} s in all)", flush=True)
    return campaign


def _kill_once(name: str, number: int, reference: Reference, kept: Path) -> Result:
    rng, tries = random.Random(f"{name} {number}"), _TRIES
    while True:
        kill = Kill(Role.POWER, Moment.ANY, rng.random(), rng.randrange(1 << 16))
        result = rounds.play_kills(number, reference, [kill], kept)
        tries -= 1
        if result.violations or result.by_role() or not tries:
            return result
