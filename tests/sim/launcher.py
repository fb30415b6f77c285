"""Restarts the simulated processes, and makes them fail."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, TypeVar

from resilient_scoop.core.endings import LAUNCHER_GONE
from resilient_scoop.core.events import AskCheckpoints, Interrupt, Table
from tests.sim import scripts
from tests.sim.cancels import Broken
from tests.sim.host import AgentShell
from tests.sim.shells import BrokerShell, Process
from tests.sim.world import KINDS

if TYPE_CHECKING:
    from tests.sim.world import World


_T = TypeVar("_T")
_STARTS_S = 0.3
"""A process that an agent is just starting is there after so long, and can be ended."""


class Launcher:
    """Restarts the broker and the agents; after a full stop it resumes the run."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.interrupted = False  # the user has asked the run to end
        # requested checkpoints; a new broker is asked again
        self.asking: AskCheckpoints | None = None
        self.asking_until = 0.0
        # drawn separately, so other histories stay the same
        self.chance = random.Random(f"asks of {world.seed}")

    def start(self, *, adopt: bool) -> None:
        """Start the run, or resume it."""
        world = self.world
        if not adopt:
            world.missing_functions.begin_life()
            world.hosts.begin_life()
        self.start_broker(adopt=adopt)
        if world.grid is None:
            for node in range(world.climate.nodes):
                self.start_agent(node)
            return
        world.grid.launcher = self
        self.start_agent(0)
        for node in world.grid.nodes:
            world.grid.start(node)

    def start_broker(self, *, adopt: bool) -> None:
        if self.world.journal.get(Table.META, b"ended") is not None:
            self.world.ended = True
            return
        self.world.broker = BrokerShell(self.world, self, adopt=adopt)

    def start_agent(self, node: int) -> None:
        self.world.agents[node] = AgentShell(self.world, self, node)

    def lost_broker(self) -> None:
        world, life = self.world, self.world.life
        agent = world.agents[0]
        has_left = world.grid is not None and agent is not None and agent.machine.left
        if (self.interrupted or has_left) and not world.stopping:
            world.at(0.0, None, self.stopped)  # the run was asked to end, and has ended
        elif not world.stopping:
            delay_s = 0.02 + world.climate.boot_s * world.rng.random()
            world.at(delay_s, None, self._again_broker, life)

    def _again_broker(self, life: int) -> None:
        if life == self.world.life:
            self.start_broker(adopt=True)

    def lost_agent(self, node: int) -> None:
        if node and self.world.grid is not None:
            self.world.grid.ended(node)
            return
        world, life = self.world, self.world.life
        if not world.stopping:
            world.at(0.02 + world.rng.random(), None, self._again_agent, life, node)

    def _again_agent(self, life: int, node: int) -> None:
        if life == self.world.life:
            self.start_agent(node)

    def gave_up(self) -> None:
        """Stop the run because an agent cannot continue; resume it when the cause is corrected."""
        world = self.world
        world.faults["gave up"] += 1
        world.hosts.mended = self.interrupted = True
        if world.broker is not None and world.broker.alive and world.broker.open:
            world.broker.interrupt()

    def gone(self) -> None:
        """Kill the launcher; broker and agents notice it by themselves, and the run is resumed."""
        world = self.world
        if world.stopping:
            return
        world.faults["launcher gone"] += 1
        world.life += 1
        world.stopping = True
        for each in self._agents():
            world.at(0.0, each, each.launcher_gone)
        world.at(0.3 * world.hosts.rng.random(), None, self._kill, world.broker)
        world.at(1.0, None, self._resume_alone, world.life)

    def gone_alone(self) -> None:
        """Kill the launcher and its host's processes; other hosts continue, and a resume may find them."""
        world = self.world
        assert world.grid is not None
        world.faults["host gone"] += 1
        world.life += 1
        world.stopping = True
        if world.broker is not None and world.broker.alive and world.broker.open:
            world.broker.exchange.add(Interrupt(LAUNCHER_GONE))
        rng = world.grid.rng
        for each in self._agents():
            world.at(0.0, each, each.launcher_gone)
        world.at(0.5 * rng.random(), None, self._kill, world.broker)
        world.at(rng.choice((1.0, 5.0, 20.0, 60.0)), None, self._resume_alone, world.life)

    def _resume_alone(self, life: int) -> None:
        """Resume when nothing of the earlier launch is left."""
        if self.world.grid is not None and life != self.world.life:
            return  # the power failed as well
        for each in self._agents():
            if each.is_remote:
                continue
            if each.paused_until < self.world.now - _STARTS_S:
                raise Broken(f"G4: {each.name} outlives its launcher")
        for process in self._here():
            if process.alive:
                process.die()
        self.resume(life)

    def plan_faults(self) -> None:
        world = self.world
        for kind in KINDS:
            rate = world.climate.rates.get(kind, 0.0)
            at_s = 0.0
            while rate > 0 and (at_s := at_s + world.rng.expovariate(rate)) < world.climate.until:
                world.at(at_s, None, self.fault, kind)

        world.hosts.plan(self)
        if world.grid is not None:
            world.grid.plan(self)
        rate, at_s = world.climate.asks, 0.0
        while rate > 0 and (at_s := at_s + self.chance.expovariate(rate)) < world.climate.until + 2:
            world.at(at_s, None, self.ask)

    def ask(self) -> None:
        """Request checkpoints as a user or a batch system does, mostly before the end of the run."""
        world = self.world
        if world.stopping or self.interrupted:
            return
        grace_s = self.chance.choice((0.5, 5.0, 30.0))
        hands_over = self.chance.random() < 0.7
        if self.asking is not None:
            hands_over = hands_over or self.asking.hands_over
        world.faults["asked"] += 1
        world.note("asks for checkpoints", None, hands_over, grace_s)
        self.asking = AskCheckpoints(hands_over, grace_s)
        self.asking_until = world.now + grace_s
        if world.broker is not None and world.broker.alive and world.broker.open:
            world.broker.ask(self.asking)

    def opened(self, broker: BrokerShell) -> None:
        """Repeat to a new broker the requests to the last one."""
        if self.interrupted:
            broker.interrupt()
        if self.asking is not None:
            left_s = max(0.0, self.asking_until - self.world.now)
            broker.ask(AskCheckpoints(self.asking.hands_over, left_s))

    def fault(self, kind: str) -> None:
        """Apply a random fault."""
        world = self.world
        if world.stopping:
            return
        world.faults[kind] += 1
        world.note(f"fault {kind}")
        seconds = world.rng.choice((0.1, 1.0, 5.0, 20.0, 60.0)) * world.rng.random()
        match kind:
            case "worker" | "origin":
                self._kill_worker(kind)
            case "agent":
                self._kill(self._one(self._agents()))
            case "broker":
                self._kill(world.broker)
            case "both":
                self._kill_worker("origin")
                self._kill(world.broker)
            case "power":
                self.power_cut()
            case _:
                self._hinder(kind, seconds)

    def _hinder(self, kind: str, seconds: float) -> None:
        world = self.world
        match kind:
            case "pause":
                process = self._one(self._everybody())
                if process is not None:
                    process.pause(seconds)
            case "cut":
                process = self._one([p for p in self._everybody() if p.id])
                if process is not None:
                    world.cut(process.id, min(seconds, 20.0))
            case "apart":
                agent = self._one(self._agents())
                children = [] if agent is None else [each.id for each in agent.children.values()]
                for peer in [] if agent is None else [agent.id, *children]:
                    world.cut(peer, min(seconds, 20.0))
            case "slow":
                world.slow_until = world.now + min(seconds, 5.0)
            case "full":
                world.full_until = world.now + min(seconds, 5.0)
            case "stop":
                if world.broker is not None and world.broker.alive and world.broker.open:
                    self.interrupted = True
                    world.broker.interrupt()
            case _:
                raise AssertionError(kind)

    def _agents(self) -> list[AgentShell]:
        return [a for a in self.world.agents if a is not None and a.alive]

    def _kill(self, process: Process | None) -> None:
        if process is not None and process.alive:
            process.die()

    def _kill_worker(self, role: str) -> None:
        worker = self._one([w for w in self.world.workers.values() if w.role == role])
        if worker is not None and worker.may_crash():
            worker.die()

    def _everybody(self) -> list[Process]:
        world = self.world
        found: list[Process] = [*world.workers.values()]
        found += self._agents()
        if world.broker is not None and world.broker.alive:
            found.append(world.broker)
        return found

    def _here(self) -> list[Process]:
        """Return the processes of the launcher's host: other hosts have their own power supply."""
        grid = self.world.grid
        return [p for p in self._everybody() if grid is None or p.id not in grid.node_of]

    def _one(self, choices: list[_T]) -> _T | None:
        return self.world.rng.choice(choices) if choices else None

    def power_cut(self) -> None:
        """Kill everything at once; resume the run later."""
        world = self.world
        world.life += 1
        world.stopping = True
        for process in self._here():
            if process.alive:
                process.die()
        world.at(1.0, None, self.resume, world.life)

    def stopped(self) -> None:
        """Handle the requested end of a broker: the other processes end too, and the run is resumed."""
        if not self.world.stopping:
            self.power_cut()

    def resume(self, life: int) -> None:
        world = self.world
        if life == world.life:
            world.stopping = self.interrupted = False
            self.asking = None
            if world.grid is None:
                world.workers.clear()
            if world.climate.edits and world.journal.get(Table.META, b"ended") is None:
                world.edited = True
                world.steps = scripts.edit(world.rng, world.steps)
            self.start(adopt=False)
