"""Faults of simulated hosts: starts that are refused or fail, workers that die early or hang at a stop.

They are drawn separately, and only for worlds that have them: other histories are unchanged.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

from resilient_scoop.core.endings import CANNOT_IMPORT, REFUSED

if TYPE_CHECKING:
    from resilient_scoop.core.broker.broker import Broker
    from tests.sim.children import Unborn
    from tests.sim.host import AgentShell
    from tests.sim.launcher import Launcher
    from tests.sim.world import World


@dataclass(frozen=True, slots=True)
class Trouble:
    """The rates of faults of hosts; a chance is that of one start."""

    refuses: float = 0.0  # how often per second a host begins to refuse processes
    full: float = 0.0  # chance that the reason is a full disk
    stillborn: float = 0.0  # the process ends before it has begun
    unfit: float = 0.0  # it cannot import the script
    limited: float = 0.0  # it reaches a limit of the system itself
    young: float = 0.0  # it dies within a second
    oom: float = 0.0  # it is killed because memory is exhausted
    freed: float = 0.0  # it ends because it waits for a lock
    ignores_stop: float = 0.0  # it does not end when it is stopped
    gone: float = 0.0  # how often per second the launcher is killed

    @classmethod
    def draw(cls, rng: random.Random) -> Trouble:
        rare, often = (0.0, 0.0, 0.1, 0.3), (0.0, 0.0, 0.3, 0.95)
        return cls(
            refuses=rng.choice((0.0, 0.1, 0.5)), full=rng.choice((0.0, 0.3)),
            stillborn=rng.choice(often), unfit=rng.choice(often), limited=rng.choice(rare),
            young=rng.choice((0.0, 0.3, 0.95)), oom=rng.choice(rare), freed=rng.choice(rare),
            ignores_stop=rng.choice((0.0, 0.5)), gone=rng.choice((0.0, 0.0, 0.2)),
        )  # fmt: skip


NO_IMPORT = "a worker cannot import the script"


class Hosts:
    """What happens to the processes of a world's hosts."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.rng = random.Random(f"hosts of {world.seed}")
        self.trouble = world.climate.hosts
        # by node: the end of the refusals, and whether the disk is full
        self.refusing: dict[int, tuple[float, bool]] = {}
        self.mended = False  # the user has corrected the cause of the stop
        self.calm = False  # no faults in this life

    def plan(self, launcher: Launcher) -> None:
        """Plan the faults that happen independently of starts."""
        if self.trouble is None:
            return
        for rate, do in ((self.trouble.refuses, self._refuse), (self.trouble.gone, launcher.gone)):
            at_s = 0.0
            while rate > 0 and (at_s := at_s + self.rng.expovariate(rate)) < self._until():
                self.world.at(at_s, None, do)

    def _until(self) -> float:
        return self.world.climate.until + 2.0

    def begin_life(self) -> None:
        """Begin a life: the run is started or resumed."""
        self.calm, self.mended = self.mended, False

    def _is_at_work(self) -> bool:
        return self.trouble is not None and not self.calm and self.world.now < self._until()

    def _chance(self, probability: float) -> bool:
        return probability > 0 and self._is_at_work() and self.rng.random() < probability

    def _refuse(self) -> None:
        assert self.trouble is not None
        node = self.rng.randrange(self.world.climate.nodes)
        seconds = self.rng.choice((0.5, 3.0, 15.0, 40.0)) * self.rng.random()
        full = self.rng.random() < self.trouble.full
        self.world.faults["refuses"] += 1
        self.refusing[node] = (self.world.now + seconds, full)

    def refusal(self, host: AgentShell) -> tuple[str, bool] | None:
        """Return why a host has no room for a process, and whether its disk is full."""
        until, full = self.refusing.get(host.node, (0.0, False))
        return ("no more processes", full) if self.world.now < until and not self.calm else None

    def unborn(self, host: AgentShell, name: str) -> Unborn | None:
        """Return a process that ends before it begins, if the start fails."""
        from tests.sim.children import Unborn

        trouble = self.trouble
        if trouble is None:
            return None
        codes = {REFUSED: trouble.limited, 1: trouble.stillborn}
        if name != "origin":
            codes[CANNOT_IMPORT] = trouble.unfit
        for code, chance in codes.items():
            if self._chance(chance):
                self.world.faults["unborn"] += 1
                return Unborn(self.world, host, name, code, self.rng.random() * 0.3)
        return None

    def ignores_stop(self) -> bool:
        """Draw whether a process does not end at a stop."""
        return self.trouble is not None and self._chance(self.trouble.ignores_stop)

    def early_end(self) -> tuple[str, float] | None:
        """Draw whether a process ends soon after it has begun, when and how."""
        trouble = self.trouble
        if trouble is None:
            return None
        for cause, chance, within_s in (
            ("crash", trouble.young, 0.9), ("oom", trouble.oom, 3.0), ("freed", trouble.freed, 3.0),
        ):  # fmt: skip
            if self._chance(chance):
                self.world.faults[f"early {cause}"] += 1
                return cause, self.rng.random() * within_s
        return None

    def turned(self, broker: Broker, launcher: Launcher) -> None:
        """Tell the launcher after a broker's turn why it stops."""
        if broker.keeper.halted == NO_IMPORT:
            launcher.interrupted = self.mended = True
