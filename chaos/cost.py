"""What a death costs: the time a run takes longer than undisturbed, by who was killed.

One kill per run, at a drawn moment in its middle; the median over the runs counts. The work that
was lost with a worker is part of what is measured (on average half a call, 25 ms, on one of two
workers).
"""

from __future__ import annotations

import random
import statistics
import tempfile
import time
from pathlib import Path

from chaos import command, nemesis, rounds
from chaos.command import Place
from chaos.nemesis import Kill, Moment, Target
from chaos.processes import Role
from chaos.rounds import Reference

ROLES = ("worker", "broker", "agent", "origin")
_LIMITS_S = {"worker": 0.5, "broker": 1.5}
_DEADLINE_S = 120.0
_WARM_S = 1.5


def report(kills: int, roles: list[str] | None) -> int:
    """Measure and print; return 1 if a death costs more than it may."""
    script = rounds.script_of("even")
    calm = [rounds.measure(script) for _ in range(max(3, kills // 2))]
    base_s = statistics.median(each.duration_s for each in calm)
    spread_s = max(each.duration_s for each in calm) - min(each.duration_s for each in calm)
    print(f"undisturbed: {base_s:.2f} s (spread {spread_s:.2f} s, {len(calm)} runs)", flush=True)
    code = 0
    for role in roles or ROLES:
        costs = sorted(
            _duration(calm[0], base_s, Role(role), number) - base_s for number in range(kills)
        )
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


def _duration(reference: Reference, base_s: float, role: Role, number: int) -> float:
    rng = random.Random(f"{role} {number}")
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
        place = Place(Path(folder) / "r", f"cost-{time.time_ns()}")
        began = time.monotonic()
        process = command.start(place, command.run_arguments(reference.script))
        run_id = place.run

        def is_over() -> bool:
            return process.poll() is not None

        target = Target(
            process.pid,
            lambda: None if (run := run_id()) is None else run.name,
            is_over,
            place.said_bytes,
            lambda: 0,
            reference.lines,
            base_s - 1.0,
            began,
        )
        time.sleep(_WARM_S)
        kill = Kill(role, Moment.UNIFORM, rng.random() * 0.9, rng.randrange(99))
        hit = nemesis.strike(kill, target)
        code = command.await_end(process, began + _DEADLINE_S)
        took_s = time.monotonic() - began
        if code != 0 or not hit:
            process.kill()
            process.wait()
            raise rounds.RunHangsError(f"kill of {role}: hit {hit}, exit code {code}")
        return took_s
