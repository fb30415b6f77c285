"""Kills of a run, drawn from a seed before it begins, and how they are carried out.

A kill is a role and a moment. Most moments are uniform over the rest of the undisturbed run's
duration; the others are chosen where bugs are likely: during the start, during the recovery from
the kill before, directly after a line of output, at the end. A kill counts only where a live
process was hit.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from chaos import processes
from chaos.processes import Process, Role

STARTUP_S = 0.9
RECOVERY_S = 0.7
END_S = 0.12
OUTPUT_S = 0.003
_MOST = 0.85  # fraction of the time left, because runs differ in length
_PATIENCE_S = 1.5
_POLL_S, _POLL_OUTPUT_S = 0.004, 0.0003
_KILLS_MAX = 4
_WORKER_KILLS_MAX = 2  # a third kill could hit the same item, which then fails as designed


class Moment(StrEnum):
    """When a kill happens."""

    UNIFORM = "uniform"
    ANY = "any"  # uniform up to the end: it may come too late
    STARTUP = "startup"
    RECOVERY = "recovery"
    OUTPUT = "output"
    END = "end"


@dataclass(frozen=True, slots=True)
class Kill:
    """One kill: `fraction` is its time within its moment, `which` chooses among several processes."""

    role: Role
    moment: Moment
    fraction: float
    which: int

    def __str__(self) -> str:
        return f"{self.role}@{self.moment}:{self.fraction:.3f}"


_ROLES = {
    Role.WORKER: 3, Role.BROKER: 4, Role.ORIGIN: 3, Role.AGENT: 3,
    Role.LAUNCHER: 3, Role.EVERYTHING: 3,
}  # fmt: skip
_MOMENTS = {Moment.UNIFORM: 9, Moment.OUTPUT: 4, Moment.STARTUP: 3, Moment.END: 4}
_NEXT_MOMENTS = {Moment.UNIFORM: 5, Moment.RECOVERY: 5, Moment.OUTPUT: 2, Moment.END: 2}


def draw(rng: random.Random) -> list[Kill]:
    """Return the kills of one round, in their order."""
    kills: list[Kill] = []
    for number in range(rng.choices(range(1, _KILLS_MAX + 1), (4, 3, 2, 1))[0]):
        (role,) = rng.choices(list(_ROLES), list(_ROLES.values()))
        if sum(kill.role is Role.WORKER for kill in kills) >= _WORKER_KILLS_MAX:
            role = Role.BROKER
        moments = _NEXT_MOMENTS if number else _MOMENTS
        (moment,) = rng.choices(list(moments), list(moments.values()))
        kills.append(Kill(role, moment, rng.random(), rng.randrange(1 << 16)))
    return kills


@dataclass(slots=True)
class Target:
    """A run in progress, as the nemesis sees it."""

    launcher: int
    run_key: Callable[[], str | None]
    is_over: Callable[[], bool]
    output_bytes: Callable[[], int]
    output_lines: Callable[[], int]
    lines: int  # of the undisturbed run
    duration_s: float  # of the undisturbed run
    started_at: float
    killed_at: float = 0.0


Fire = Callable[[list[Process]], list[Process]]
"""Does something to processes; returns those that it hit."""


def strike(kill: Kill, target: Target, fire: Fire | None = None) -> list[Process]:
    """Wait for a kill's moment and carry it out; return which processes it hit: none if the run was over.

    `fire` is called with the chosen processes instead of killing them.
    """
    known = _find(target) if kill.moment in (Moment.OUTPUT, Moment.END) else None
    if not _await_moment(kill, target):
        return []
    until = time.monotonic() + _PATIENCE_S
    while not target.is_over():
        victims = _choose(kill, _find(target) if known is None else known)
        run_key = target.run_key() or ""
        alive = [each for each in victims if each.is_alive(run_key)]
        hit = (fire or _FIRE.get(kill.role, _kill))(alive)
        if hit:
            target.killed_at = time.monotonic()
            return hit
        known = None
        if time.monotonic() > until:
            return []
        time.sleep(_POLL_S)
    return []


def _await_moment(kill: Kill, target: Target) -> bool:
    """Wait for a kill's moment; return whether the run still continues."""
    if kill.moment in (Moment.OUTPUT, Moment.END):
        return _await_output(kill, target)
    now = time.monotonic()
    if kill.moment is Moment.STARTUP:
        at = target.started_at + kill.fraction * STARTUP_S
    elif kill.moment is Moment.RECOVERY:
        at = max(target.killed_at, target.started_at) + kill.fraction * RECOVERY_S
    else:
        left_s = max(0.5, target.started_at + target.duration_s - now)
        most = 1.0 if kill.moment is Moment.ANY else _MOST
        at = now + kill.fraction * most * left_s
    return _sleep_until(at, target)


def _await_output(kill: Kill, target: Target) -> bool:
    seen = target.output_bytes()
    while not target.is_over():
        if target.output_bytes() != seen:
            seen = target.output_bytes()
            if kill.moment is Moment.OUTPUT:
                return _sleep_until(time.monotonic() + kill.fraction * OUTPUT_S, target)
            if target.output_lines() >= target.lines:
                return _sleep_until(time.monotonic() + kill.fraction * END_S, target)
        time.sleep(_POLL_OUTPUT_S)
    return False


def _sleep_until(at: float, target: Target) -> bool:
    while (left_s := at - time.monotonic()) > 0:
        if target.is_over():
            return False
        time.sleep(min(left_s, _POLL_S))
    return not target.is_over()


def _kill(alive: list[Process]) -> list[Process]:
    return [each for each in alive if processes.kill(each.pid)]


def _cut_power(alive: list[Process]) -> list[Process]:
    killed = processes.cut_power([each.pid for each in alive])
    return [each for each in alive if each.pid in killed]


_FIRE = {Role.POWER: _cut_power}


def _find(target: Target) -> list[Process]:
    run_key = target.run_key()
    found = [] if run_key is None else processes.of_run(run_key)
    return [Process(target.launcher, Role.LAUNCHER), *found]


def _choose(kill: Kill, found: list[Process]) -> list[Process]:
    if kill.role in (Role.EVERYTHING, Role.POWER):
        turn = kill.which % len(found)
        return found[turn:] + found[:turn]
    fit = [process for process in found if process.role is kill.role]
    return [fit[kill.which % len(fit)]] if fit else []
