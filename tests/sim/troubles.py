"""Troubles of simulated hosts: starts that are refused or fail, workers that die young or hang at a stop.

They are drawn separately, and only for worlds that are to have them: other histories are unchanged.
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
    """What hosts do to processes; chances are those of a start."""

    refuses: float = 0.0  # how often a second a host begins to refuse processes
    full: float = 0.0  # chance that the reason is a full disk
    stillborn: float = 0.0  # it ends before it has begun
    unfit: float = 0.0  # it cannot import the script
    limited: float = 0.0  # it meets a limit of the system by itself
    young: float = 0.0  # it dies within a second
    oom: float = 0.0  # it is killed for memory
    freed: float = 0.0  # it ends to free itself of a lock
    ignores_stop: float = 0.0  # it does not end at a stop
    gone: float = 0.0  # how often a second the launcher is killed

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
        self.refusing: dict[int, tuple[float, bool]] = {}  # by node: until when, and a full disk
        self.mended = False  # the user has corrected what made the run stop
        self.calm = False  # nothing happens in this life

    def plan(self, launcher: Launcher) -> None:
        """Plan what comes by itself."""
        if self.trouble is None:
            return
        for rate, do in ((self.trouble.refuses, self._refuse), (self.trouble.gone, launcher.gone)):
            at_s = 0.0
            while rate > 0 and (at_s := at_s + self.rng.expovariate(rate)) < self._until():
                self.world.at(at_s, None, do)

    def _until(self) -> float:
        return self.world.climate.until + 2.0

    def begin_life(self) -> None:
        """The run is started, or resumed."""
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
        """Return a process that will not begin, if that is how a start goes."""
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
        """Draw how and when a process that has begun ends soon."""
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
        """A broker has taken a turn: the launcher hears why it stops."""
        if broker.keeper.halted == NO_IMPORT:
            launcher.interrupted = self.mended = True
