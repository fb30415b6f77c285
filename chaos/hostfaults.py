"""Faults of the hosts of a run.

They are drawn from a seed before the round; injection and healing are both proven. A round with a
fault that cannot be proven does not count; a fault that found no target counts as a miss.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from chaos import processes
from chaos.lab import DESK, Lab
from chaos.lab.namespaces import state_of
from chaos.processes import Process, Role

_PROOF_S = 2.0
_POLL_S = 0.002
_SEEN_S = 2.0  # a live host sends something at least this often
_FLAPS = 3
_FLAP_S = 0.4


class Fault(StrEnum):
    """What can happen to a host, or to a process that serves one."""

    WORKER_KILL = "worker-killed"
    WORKER_STOP = "worker-stopped"
    AGENT_KILL = "agent-killed"
    AGENT_STOP = "agent-stopped"
    GUARDIAN_KILL = "guardian-killed"
    ORIGIN_KILL = "origin-killed"
    BROKER_KILL = "broker-killed"
    BROKER_STOP = "broker-stopped"
    PLACES_KILL = "places-killed"
    LAUNCHER_KILL = "launcher-killed"
    POWER_OFF = "power-off"
    REBOOT = "reboot"
    FLAP = "flapping"
    SLEEP = "sleep"
    CUT = "partition"
    CUT_IN = "partition-in"
    CUT_OUT = "partition-out"
    CABLE = "cable-pulled"
    RESET = "connections-reset"
    LOSS = "packet-loss"
    DELAY = "delay"
    RATE = "slow-link"
    REORDER = "reordering"


SHAPES = {
    Fault.LOSS: {"loss": 0.1},
    Fault.DELAY: {"delay_s": 0.15, "jitter_s": 0.05},
    Fault.RATE: {"rate_bps": 1e6},
    Fault.REORDER: {"reorder": 0.2},
}
"""Of the network "tun" only."""
OF_ONE_PROCESS = {
    Fault.WORKER_KILL: Role.WORKER, Fault.WORKER_STOP: Role.WORKER, Fault.AGENT_KILL: Role.HOST_AGENT,
    Fault.AGENT_STOP: Role.HOST_AGENT, Fault.GUARDIAN_KILL: Role.GUARDIAN,
    Fault.ORIGIN_KILL: Role.ORIGIN, Fault.BROKER_KILL: Role.BROKER, Fault.BROKER_STOP: Role.BROKER,
    Fault.PLACES_KILL: Role.PLACES,
}  # fmt: skip
AT_DESK = {
    Fault.ORIGIN_KILL, Fault.BROKER_KILL, Fault.BROKER_STOP, Fault.PLACES_KILL, Fault.LAUNCHER_KILL,
}  # fmt: skip
CUTS = {Fault.CUT: ("in", "out"), Fault.CUT_IN: ("in",), Fault.CUT_OUT: ("out",)}
LASTING = {
    Fault.WORKER_STOP, Fault.AGENT_STOP, Fault.BROKER_STOP, Fault.REBOOT, Fault.SLEEP, Fault.CABLE,
    *CUTS, *SHAPES,
}  # fmt: skip
"""Faults with an end of their own; the others are over at once, or last until the run's end."""


@dataclass(frozen=True, slots=True)
class Drawn:
    """A fault as it was drawn.

    `fraction`: below 0.1, the fault is injected while the hosts start; otherwise when this fraction
    of the run's items is done. `which`: chooses the target.
    """

    kind: Fault
    host: str
    fraction: float
    lasts_s: float
    which: int

    def __str__(self) -> str:
        lasts = f" for {self.lasts_s:.1f} s" if self.kind in LASTING else ""
        return f"{self.kind} ({self.host}@{self.fraction:.2f}{lasts})"


def draw(rng: random.Random, hosts: list[str], kinds: list[Fault], limit_s: float) -> list[Drawn]:
    """Return the faults of one round: each on another host, so that one host always stays without a fault.

    `limit_s`: after this time without a message a host counts as lost; some faults are shorter and
    some are longer.
    """
    victims = rng.sample(hosts, len(hosts) - 1)
    found = []
    for host in victims[: rng.choice((1, 1, 2))]:
        kind = rng.choice(kinds)
        lasts_s = limit_s * rng.choice((0.2, 0.6, 1.5)) * (0.5 + rng.random())
        where = DESK if kind in AT_DESK else host
        found.append(
            Drawn(kind, where, 0.05 + 0.85 * rng.random(), lasts_s, rng.randrange(1 << 16))
        )
    return sorted(found, key=lambda each: each.fraction)


@dataclass(slots=True)
class Injection:
    """A fault that was injected."""

    drawn: Drawn
    at_s: float = 0.0  # when it was injected; 0: it found no target
    healed_s: float = 0.0
    victims: list[int] = field(default_factory=list)  # process ids on the machine
    # the same processes, with their ids on their host
    inner: list[int] = field(default_factory=list)
    unproven: list[str] = field(default_factory=list)
    dropped: dict[str, int] = field(default_factory=dict)
    slowed: int = 0

    @property
    def is_hit(self) -> bool:
        """Whether it found a target."""
        return self.at_s > 0

    def prove(self, holds: Callable[[], bool], text: str) -> None:
        """Wait until a condition holds; record it if it does not."""
        until = time.monotonic() + _PROOF_S
        while not holds():
            if time.monotonic() > until:
                self.unproven.append(f"{self.drawn}: not proven: {text}")
                return
            time.sleep(_POLL_S)


class Injector:
    """Carries out faults on the hosts of one run."""

    def __init__(
        self, lab: Lab, run_key: Callable[[], str | None], launcher: Callable[[], int]
    ) -> None:
        self.lab = lab
        self.run_key = run_key
        self.launcher = launcher

    def inject(self, drawn: Drawn) -> Injection:
        """Inject a fault and prove it."""
        injection = Injection(drawn)
        if drawn.kind is Fault.LAUNCHER_KILL:
            self._kill(injection, [Process(self.launcher(), Role.LAUNCHER)])
        elif drawn.kind in OF_ONE_PROCESS:
            self._hit_process(injection)
        elif self.lab.is_on(drawn.host):
            injection.at_s = time.monotonic()
            self._hit_host(injection)
        return injection

    def _targets(self, drawn: Drawn) -> list[Process]:
        run_key, role = self.run_key(), OF_ONE_PROCESS[drawn.kind]
        there = self.lab.processes(drawn.host) if self.lab.is_on(drawn.host) else {}
        found = [] if run_key is None else processes.of_run(run_key)
        fit = sorted((p for p in found if p.role is role and p.pid in there), key=lambda p: p.pid)
        return [fit[drawn.which % len(fit)]] if fit else []

    def _hit_process(self, injection: Injection) -> None:
        targets = self._targets(injection.drawn)
        if injection.drawn.kind in LASTING:
            self._stop(injection, targets)
        else:
            self._kill(injection, targets)

    def _kill(self, injection: Injection, targets: list[Process]) -> None:
        for each in targets:
            inner = _inner(each.pid)
            injection.at_s = time.monotonic()
            if processes.kill(each.pid):
                injection.victims.append(each.pid)
                injection.inner.append(inner)
        injection.prove(lambda: _states(injection) <= {"", "Z"}, "it is still there")

    def _stop(self, injection: Injection, targets: list[Process]) -> None:
        for each in targets:
            injection.victims.append(each.pid)
            injection.inner.append(_inner(each.pid))
            injection.at_s = time.monotonic()
            with suppress(ProcessLookupError):
                os.kill(each.pid, signal.SIGSTOP)
        injection.prove(lambda: _states(injection) <= {"T", "", "Z"}, "it is not stopped")

    def _hit_host(self, injection: Injection) -> None:
        lab, kind, host = self.lab, injection.drawn.kind, injection.drawn.host
        injection.dropped, injection.slowed = lab.dropped(host), lab.network.slowed(host)
        match kind:
            case Fault.POWER_OFF | Fault.REBOOT:
                self._power_off(injection)
            case Fault.FLAP:
                for _ in range(_FLAPS):
                    self._power_off(injection)
                    lab.boot(host)
                    time.sleep(_FLAP_S)
                injection.healed_s = time.monotonic()
            case Fault.SLEEP:
                lab.sleep(host)
                injection.prove(lambda: lab.is_asleep(host), "it does not sleep")
            case Fault.CABLE:
                lab.unplug(host)
            case Fault.RESET:
                if not lab.reset_connections(host):
                    injection.at_s = 0.0  # there was none
                injection.healed_s = time.monotonic()
            case _ if kind in CUTS:
                lab.cut(host, "both" if len(CUTS[kind]) > 1 else CUTS[kind][0])  # type: ignore[arg-type]  # one of the two directions
            case _:
                for way in ("in", "out"):
                    lab.network.shape(host, way, SHAPES[kind])

    def _power_off(self, injection: Injection) -> None:
        numbers = list(self.lab.processes(injection.drawn.host))
        self.lab.power_off(injection.drawn.host)
        gone = all(state_of(pid) in ("", "Z") for pid in numbers)
        injection.prove(lambda: gone, "some processes live")

    def heal(self, injection: Injection) -> None:
        """End a fault, and prove that it had an effect."""
        kind, host = injection.drawn.kind, injection.drawn.host
        if not injection.is_hit or injection.healed_s or kind not in LASTING:
            return
        if kind in (*CUTS, *SHAPES) and time.monotonic() < injection.at_s + _SEEN_S:
            injection.at_s = 0.0  # the run ended first, so there may have been no packet
        elif kind in CUTS:
            self._prove_cut(injection, CUTS[kind])
        elif kind is Fault.LOSS:
            self._prove_cut(injection, ("in", "out"))
        elif kind in SHAPES:
            slowed = self.lab.network.slowed(host) - injection.slowed
            injection.prove(lambda: slowed > 0, "no packet came late")
        injection.healed_s = time.monotonic()
        self._heal_host(kind, host, injection)

    def _heal_host(self, kind: Fault, host: str, injection: Injection) -> None:
        if kind in OF_ONE_PROCESS:
            for pid in injection.victims:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)
            injection.prove(lambda: "T" not in _states(injection), "it is still stopped")
        elif kind is Fault.REBOOT:
            self.lab.boot(host)
        elif kind is Fault.SLEEP:
            self.lab.wake(host)
            injection.prove(lambda: not self.lab.is_asleep(host), "it still sleeps")
        elif kind is Fault.CABLE:
            self.lab.plug(host)
        else:
            self.lab.heal(host)

    def _prove_cut(self, injection: Injection, ways: tuple[str, ...]) -> None:
        """Prove that packets were dropped; a direction without packets proves nothing."""
        now = self.lab.dropped(injection.drawn.host)
        dropped = sum(now[way] - injection.dropped[way] for way in ways)
        injection.prove(lambda: dropped > 0, "no packet was dropped")


def _states(injection: Injection) -> set[str]:
    return {state_of(pid) for pid in injection.victims}


def _inner(pid: int) -> int:
    """Return the id that a process has on its own host."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("NSpid:"):
                return int(line.split()[-1])
    return pid
