"""A simulated host: the real `Agent` machine, and a kernel in virtual time.

It starts processes when the machine requests it, and reports their ends to the machine;
`tests.sim.watch` checks what the machine must never do.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import TYPE_CHECKING, assert_never

from resilient_scoop.core import agent
from resilient_scoop.core.agent import Agent, AgentConfig, Slot
from resilient_scoop.core.flight import Flight
from resilient_scoop.core.relay import Relay
from resilient_scoop.ids import PeerId
from resilient_scoop.wire import messages as wire
from tests.sim.handed import Shelf
from tests.sim.shells import RUN8, Process
from tests.sim.watch import Watch
from tests.sim.world import Wire

if TYPE_CHECKING:
    from resilient_scoop.core.worker.worker import Work
    from tests.sim.children import Child
    from tests.sim.launcher import Launcher
    from tests.sim.worker import WorkerShell
    from tests.sim.world import World

ALIVE_S = 1.0


class AgentShell(Process):
    """Starts the processes of one host and notices their ends; they die with it."""

    def __init__(self, world: World, launcher: Launcher, node: int) -> None:
        super().__init__(world, f"agent{node}", world.new_id("agent"))
        self.launcher = launcher
        self.node = node
        self.reaped: Child  # the last broker's
        # by the name of their slot, until their end is noticed
        self.children: dict[str, Child] = {}
        grid = world.grid
        self.is_remote = grid is not None and node > 0
        count = world.climate.workers if grid is None else grid.weather.workers[node]
        slots = [Slot("worker", f"w{node}{at}") for at in range(count)]
        slots = slots if node else [Slot("origin", "origin"), *slots]
        config, host = AgentConfig(alive_s=ALIVE_S), f"n{node}"
        if grid is not None and self.is_remote:
            config = AgentConfig(alive_s=ALIVE_S, orphan_timeout_s=grid.weather.orphan_s)
            host = f"h{node}"
            grid.node_of[self.id] = node
        relay = None
        if grid is not None and self.is_remote:
            keeping = grid.weather.keeping
            shelf = Shelf(keeping, random.Random(f"disk of {self.id!r}"))
            relay = Relay(RUN8, host, keeping.config, shelf)
        self.machine = Agent(config, slots, node=host, name=self.name, pid=0, run=RUN8, relay=relay)
        self.boots = True  # its first processes start in parallel
        self.woken_at = math.inf
        self.watch = Watch(self)
        world.wires[self.id] = Wire()
        self._step(agent.Ticked({}))
        self.boots = False
        world.at(0.01, self, self._beat)

    def _step(self, event: agent.Event) -> None:
        world = self.world
        actions = self.machine.step(event, world.now)
        self.machine.check()
        if self.machine.relay is not None:
            self.machine.relay.check()
        self.watch.stepped(event, actions)
        vouches = any(isinstance(each, agent.Beat) for each in actions) and self.machine.greeted
        for action in actions:
            match action:
                case agent.Start():
                    world.at(self._boot_s(), self, self.start_child, action)
                case agent.KillProcess(name=name):
                    self.children[name].killed()
                case agent.Transmit(frames=frames):
                    world.send_up(self.id, frames)
                case agent.Beat(frames=frames):
                    if not vouches:  # otherwise an earlier message says the same
                        world.send_up(self.id, frames)
                case agent.Forward(peer=peer, frames=frames):
                    world.send_up(peer, frames, kept=False)
                case agent.EndAgent(status=status):
                    self._left(status)
                case agent.WriteNote() | agent.EndLeftovers() | agent.SendLogs():
                    pass
                case _:
                    assert_never(action)
        self._wake_in_time()

    def _boot_s(self) -> float:
        chance = self.world.rng.random()
        return 0.01 + chance * 0.1 if self.boots else 0.05 + 0.2 * chance

    def _wake_in_time(self) -> None:
        """Step the machine when something is due before its next heartbeat."""
        due = self.machine.deadline()
        if self.alive and due < min(self.machine.looks_at, self.woken_at):
            self.woken_at = max(due, self.world.now)
            self.world.at(self.woken_at - self.world.now, self, self._wake)

    def _wake(self) -> None:
        self.woken_at = math.inf
        self._step(agent.Ticked(self._flights()))

    def _beat(self) -> None:
        now = self.world.now
        states = {name: child.state(now) for name, child in self.children.items()}
        self._step(agent.Ticked(self._flights(), states))
        if self.alive:
            self.world.at(ALIVE_S, self, self._beat)

    def _flights(self) -> dict[str, Flight]:
        return {name: child.flight() for name, child in self.children.items()}

    def _left(self, status: int) -> None:
        self.alive = False
        if self.is_remote:
            self._is_over()
            self.launcher.lost_agent(self.node)
        elif status:
            self.launcher.gave_up()

    def start_child(self, wanted: agent.Start) -> None:
        from tests.sim.worker import WorkerShell

        name = wanted.name
        why = self.world.hosts.refusal(self)
        if why is not None:
            self._step(agent.NotStarted(name, *why))
            return
        child: Child | None = self.world.hosts.unborn(self, name)
        if child is None:
            child = WorkerShell(self.world, self, name, careful=wanted.careful)
        self.children[name] = child
        self._step(agent.Started(name, child.id, 0))

    def end_late(self, child: WorkerShell, work: Work, index: int) -> None:
        """Note that the flight record shows an item that exceeded its time limit."""
        if child.alive and child.on_cpu == (work, index):
            self._step(agent.Ticked(self._flights()))

    def child_died(self, child: Child) -> None:
        self.world.at(0.001, self, self._reap, child)

    def _reap(self, child: Child) -> None:
        del self.children[child.name]
        self.reaped = child
        self._step(child.exited())

    def launcher_gone(self) -> None:
        """Tell the agent at once that the launcher has ended, as the kernel does."""
        self._step(agent.LauncherGone())
        if self.alive:
            self._step(agent.Ticked(self._flights()))

    def die(self) -> None:
        super().die()
        for child in list(self.children.values()):
            if child.alive:
                child.die()
        self._is_over()
        self.launcher.lost_agent(self.node)

    def _is_over(self) -> None:
        if self.is_remote and self.world.grid is not None:
            self.world.grid.over(self)

    def reconnected(self) -> None:
        if self.machine.greeted:
            for frames in self.machine.link.again():
                self.world.send_up(self.id, frames)

    def pass_down(self, peer: bytes, frames: Sequence[bytes]) -> None:
        """Pass on a message for one of its processes."""
        relay, worker = self.machine.relay, self.world.workers.get(peer)
        assert relay is not None
        if relay.down(PeerId(peer), wire.unpack_header(frames[0])) and worker is not None:
            self.world.at(0.0, worker, worker.hear, peer, frames)
        elif relay.lines:
            self._step(agent.Ticked(self._flights()))

    def hear(self, peer: bytes, frames: Sequence[bytes]) -> None:
        self.watch.hears(frames)
        self._step(agent.Received(list(frames), self._flights()))
