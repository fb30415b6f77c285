"""The cost of a death: how much longer the work takes than undisturbed, by the killed process.

Each run has one kill, at a random moment in its middle. The duration of the work is the time
between the first start and the last end of an item in the ledger, so the load of the host while
processes start and end does not count. It includes the work that was lost with a worker: on average
half a call (25 ms) on one of two workers. The result is the median.
"""

from __future__ import annotations

import random
import statistics
import tempfile
import time
from pathlib import Path

from chaos import command, nemesis, rounds
from chaos.command import Place
from chaos.evidence import Ledger
from chaos.nemesis import Kill, Moment, Target
from chaos.processes import Role
from chaos.rounds import Reference

ROLES = ("worker", "broker", "agent", "origin")
_LIMITS_S = {"worker": 0.5, "broker": 1.5}
_DEADLINE_S = 120.0
_WARM_S = 2.0
_TAIL_S = 2.0
_CALM_RUNS_MIN = 3


def report(kills: int, roles: list[str] | None) -> int:
    """Measure and print; return 1 if a death costs more than its limit."""
    script = rounds.script_of("even")
    calm = [rounds.measure(script) for _ in range(max(_CALM_RUNS_MIN, kills // 2))]
    spans = [each.span_s for each in calm]
    base_s, spread_s = statistics.median(spans), max(spans) - min(spans)
    print(f"undisturbed: {base_s:.2f} s (spread {spread_s:.2f} s, {len(calm)} runs)", flush=True)
    code = 0
    for role in roles or ROLES:
        costs = sorted(_span(calm[0], Role(role), number) - base_s for number in range(kills))
        middle_s, limit_s = statistics.median(costs), _LIMITS_S.get(role)
        over = limit_s is not None and middle_s > limit_s
        code = max(code, int(over))
        limit = "" if limit_s is None else f", allowed {limit_s} s"
        print(
            f"{role:8s} median {middle_s:5.2f} s, {costs[0]:.2f} to {costs[-1]:.2f} s, "
            f"{kills} kills{limit}{' TOO MUCH' if over else ''}",
            flush=True,
        )
    return code


def _span(reference: Reference, role: Role, number: int) -> float:
    """Run with one kill; return how long the work took."""
    rng = random.Random(f"{role} {number}")
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
        place = Place(Path(folder) / "r", f"cost-{time.time_ns()}")
        began = time.monotonic()
        process = command.start(place, command.run_arguments(reference.script))
        time.sleep(_WARM_S)
        target = Target(
            process.pid,
            place.run_key,
            lambda: process.poll() is not None,
            place.output_bytes,
            lambda: 0,
            reference.lines,
            reference.duration_s - _TAIL_S,
            began,
        )
        kill = Kill(role, Moment.UNIFORM, rng.random(), rng.randrange(99))
        hit = nemesis.strike(kill, target)
        code = command.await_end(process, began + _DEADLINE_S)
        if code != 0 or not hit:
            process.kill()
            process.wait()
            raise rounds.RunHangsError(f"kill of {role}: hit {hit}, exit code {code}")
        return Ledger(place.root / "ledger").span_s()
