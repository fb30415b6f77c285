"""The processes of a simulated host: as its kernel sees them, and those that end before they begin."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from resilient_scoop.core import agent
from resilient_scoop.core.endings import CANNOT_IMPORT, REFUSED
from resilient_scoop.core.flight import Flight
from resilient_scoop.ids import PeerId
from tests.sim.shells import Process
from tests.sim.troubles import NO_IMPORT

if TYPE_CHECKING:
    from tests.sim.host import AgentShell
    from tests.sim.world import World


class Child(Protocol):
    """A process of a host, as its kernel sees it."""

    id: PeerId
    name: str
    role: str
    alive: bool
    cause: str  # reason of its death: "crash", "oom", "timeout", "asked"
    is_race: bool  # it was killed when it was dead already

    def die(self) -> None: ...
    def killed(self) -> None: ...
    def state(self, now: float) -> str: ...
    def flight(self) -> Flight: ...
    def exited(self) -> agent.Exited: ...


class Unborn(Process):
    """A process that ends before it has begun its work."""

    def __init__(self, world: World, host: AgentShell, name: str, code: int, age_s: float) -> None:
        self.role = "origin" if name == "origin" else "worker"
        super().__init__(world, name, world.new_id(self.role))
        self.host = host
        self.code = code
        self.cause = "asked" if code in (CANNOT_IMPORT, REFUSED) else "crash"
        self.is_race = False
        world.at(age_s, self, self.die)

    def die(self) -> None:
        super().die()
        if self.host.alive:
            self.host.child_died(self)

    def killed(self) -> None:
        self.is_race = not self.alive
        if self.alive:
            self.code, self.cause = -9, "asked"
            self.die()

    def state(self, now: float) -> str:
        return ("T" if self.paused_until > now else "R") if self.alive else "Z"

    def flight(self) -> Flight:
        return Flight(starts_s=0.1)

    def exited(self) -> agent.Exited:
        why = {CANNOT_IMPORT: NO_IMPORT, REFUSED: "no more threads"}.get(self.code, "")
        return agent.Exited(self.name, self.code, self.flight(), why=why)
