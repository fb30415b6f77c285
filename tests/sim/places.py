"""A world for the places of a run: the real machine, a shell that dies, places and hosts that misbehave.

`python -m tests.sim.places SEED [--trace]` replays one seed; `FIRST COUNT` runs many and measures.
It shares only virtual time with the world of the broker.
"""

from __future__ import annotations

import heapq
import random
import sys
import time
import traceback
import zlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import assert_never

from resilient_scoop.core import places
from resilient_scoop.core.places import (
    PlaceCall,
    PlaceConfig,
    Places,
    PlacesConfig,
    PlaceState,
    Sight,
    WrittenTag,
)
from tests.sim.places_watch import Watch

LEASE_S = 10.0
ORPHAN_S = 900.0
LAG_S = 1.5
"""Longest time until a start that was made is found."""
EFFECT_S = 2.0
"""Longest time until a start that was asked for is made."""
EVENTS_MAX = 200_000
MISCHIEF = (
    "hang", "busy", "refused", "answer lost", "twice", "forgets", "cannot tell", "lies ended",
    "lies alive", "finds nothing", "finds ended", "unborn", "slow", "ignores stop", "stop fails",
    "unwritable", "comes twice",
)  # fmt: skip
"""What a place does wrong at a call, with a chance for each."""
DISASTERS = (
    "power",
    "cut",
    "crash",
    "leave",
    "kill",
    "drain",
    "revoke",
    "blocked",
    "down",
    "early",
)
"""What happens to hosts, agents and the shell, with a rate for each."""


@dataclass(frozen=True, slots=True)
class Climate:
    """What kind of world a seed is."""

    hosts: int  # places with one host
    queue: int  # hosts of one more place
    latency_s: float
    boot_s: float
    until: float
    grace_s: float
    chances: dict[str, float]
    rates: dict[str, float]
    stops_in_calm: bool
    min_hosts: int

    @classmethod
    def draw(cls, rng: random.Random) -> Climate:
        kinds = [kind for kind in MISCHIEF if rng.random() < 0.3]
        rates = {kind: 0.02 / rng.choice((1, 3, 10)) for kind in DISASTERS if rng.random() < 0.4}
        hosts = rng.choice((0, 1, 1, 2, 4))
        return cls(
            hosts=hosts,
            queue=rng.choice((0, 0, 3)) if hosts else 3,
            latency_s=rng.choice((0.001, 0.05, 1.0)),
            boot_s=rng.choice((0.1, 2.0)),
            until=rng.choice((0.0, 30.0, 120.0, 600.0)),
            grace_s=rng.choice((0.0, 3.0, 30.0)),
            chances={kind: rng.choice((0.05, 0.3, 0.8)) for kind in kinds},
            rates=rates,
            stops_in_calm=rng.random() < 0.6,
            min_hosts=rng.choice((0, 0, 1, 2)),
        )


@dataclass(eq=False, slots=True)
class Host:
    """A machine of the world, and its connection to us."""

    name: str
    place: str
    is_queued: bool
    off_until: float = 0.0
    cut_until: float = 0.0
    blocked_until: float = 0.0  # agents cannot reach the broker
    agents: list[Agent] = field(default_factory=list)
    is_linked: bool = False  # as the broker has reported

    def answers(self, now: float) -> bool:
        return self.is_queued or (now >= self.off_until and now >= self.cut_until)

    def links(self, now: float) -> bool:
        return now >= max(self.off_until, self.cut_until, self.blocked_until)


@dataclass(eq=False, slots=True)
class Agent:
    """An agent, from the moment when its place has accepted its start."""

    host: Host
    tag: str
    found_from: float
    state: str = "accepted"  # "begun", "running", "dead"
    is_linked: bool = False
    is_double: bool = False
    has_run: bool = False
    is_disowned: bool = False  # its place reported its end, although it had not ended
    orphan_at: float = 0.0  # time at which it ends if it has no link

    @property
    def is_alive(self) -> bool:
        return self.state != "dead"


@dataclass(eq=False, slots=True)
class Handle:
    """The handle that a place returns for a unit."""

    agent: Agent
    is_lost: bool = False  # the number of the connection, for a place with one host


class World:
    """One seed."""

    def __init__(
        self,
        seed: int,
        *,
        climate: Climate | None = None,
        say: Callable[[str], None] | None = None,
    ) -> None:
        self.seed = seed
        self.rng = random.Random(f"places {seed}")
        self.climate = Climate.draw(self.rng) if climate is None else climate
        self.say = say
        self.now = 0.0
        self.heap: list[tuple[float, int, Callable[[], object]]] = []
        self.count = self.events = self.trace = 0
        self.faults: Counter[str] = Counter()
        names = [f"h{n}" for n in range(self.climate.hosts)]
        self.hosts = {name: Host(name, name, is_queued=False) for name in names}
        queued = [f"q{n}" for n in range(self.climate.queue)]
        self.hosts |= {name: Host(name, "queue", is_queued=True) for name in queued}
        self.down_until: dict[str, float] = {}  # places that refuse or are busy
        self.down_refuses: dict[str, bool] = {}
        self.handles: dict[str, Handle] = {}  # agents by unit
        self.written: dict[str, str] = {}  # tags on disk, by host
        self.out: dict[str, str] = {}  # drained or revoked hosts, and the reason
        self.is_calm = False
        self.is_stopping = False
        self.shell: Shell | None = None
        self.left_at: float | None = None
        self.watch = Watch(self)

    def at(self, delay_s: float, do: Callable[[], object]) -> None:
        self.at_exactly(self.now + delay_s, do)

    def at_exactly(self, at: float, do: Callable[[], object]) -> None:
        self.count += 1
        heapq.heappush(self.heap, (at, self.count, do))

    def chance(self, kind: str) -> bool:
        """Draw whether a fault happens now."""
        probability = self.climate.chances.get(kind, 0.0)
        if self.is_calm or not probability or self.rng.random() >= probability:
            return False
        self.faults[kind] += 1
        self.note(f"! {kind}")
        return True

    def note(self, text: str) -> None:
        self.trace = zlib.crc32(text.encode(), self.trace)
        if self.say is not None:
            self.say(f"{self.now:9.3f} {text}")

    def run_until(self, until: float, done: Callable[[], bool] = lambda: False) -> bool:
        """Run until a time; return whether `done` became true before."""
        while not done():
            if not self.heap or self.heap[0][0] > until:
                self.now = until
                return done()
            self.events += 1
            assert self.events < EVENTS_MAX, "it does not come to rest"
            self.now, _, do = heapq.heappop(self.heap)
            do()
        return True

    def run(self) -> World:
        """Run with faults, then without, then stop, start the next launcher, and stop again."""
        self._plan_disasters()
        self.boot()
        self.run_until(self.climate.until)
        if self.climate.stops_in_calm:
            self._become_calm()
        self._stop()
        self._become_calm()
        self.watch.after_stop()
        self.note("resume")
        self.is_stopping, self.left_at = False, None
        self.watch.new_life()
        self.boot()
        for host in self.hosts.values():
            self._relink(host)  # agents try to connect as long as they live, also without a broker
        self._await_agents()
        self._stop()
        self.run_until(self.now + 30.0)
        self.watch.at_end()
        return self

    def _become_calm(self) -> None:
        """End the faults; then every host in use must get its agent within a time limit."""
        if self.is_calm:
            return
        self.note("calm")
        self.is_calm = True
        self.watch.calm_at = self.now
        self.down_until.clear()
        for host in self.hosts.values():
            host.off_until = host.cut_until = min(host.cut_until, self.now)
            host.blocked_until = self.now
        if not self.is_stopping:
            self._await_agents()

    def _await_agents(self) -> None:
        bound_s = self.watch.bound_s()
        if not self.run_until(self.now + bound_s, self._is_complete):
            missing = [h.name for h in self._used() if not h.is_linked]
            raise AssertionError(f"no agent on {missing} within {bound_s:.0f} s of calm")
        # agents that are not wanted end
        self.run_until(self.now + (1000.0 if self.faults else 60.0))
        self.watch.in_calm()

    def _used(self) -> list[Host]:
        return [host for host in self.hosts.values() if host.name not in self.out]

    def _is_complete(self) -> bool:
        return all(host.is_linked for host in self._used())

    def _stop(self) -> None:
        self.note("stop")
        self.is_stopping = True
        grace_s = self.climate.grace_s
        self.watch.stop_began(grace_s)
        if self.rng.random() < 0.5:  # the broker reports it too
            for host in self.hosts.values():
                for agent in host.agents:
                    if agent.is_linked:
                        self.at(self.rng.random(), partial(self.leave, agent))
        if self.shell is None:
            self.run_until(self.now + 10.0, lambda: self.shell is not None)
        assert self.shell is not None
        self.shell.hear(places.EndUnits(grace_s))
        limit_s = grace_s + places.STOP_LAST_S + 2 * self.climate.latency_s + 0.01
        self.run_until(self.now + limit_s, lambda: self.left_at is not None)
        assert self.left_at is not None, f"PL7: it has not left {limit_s:.1f} s after the stop"

    def _plan_disasters(self) -> None:
        for kind, rate in self.climate.rates.items():
            at = 0.0
            while (at := at + self.rng.expovariate(rate)) < self.climate.until:
                self.at(at, partial(self._strike, kind))

    def _strike(self, kind: str) -> None:
        if self.is_calm:
            return
        host = self.rng.choice(list(self.hosts.values()))
        seconds = self.rng.choice((1.0, 8.0, 40.0, 200.0)) * (0.5 + self.rng.random())
        agents = [agent for agent in host.agents if agent.state == "running"]
        self.faults[kind] += 1
        self.note(f"! {kind} {host.name} {seconds:.0f} s")
        match kind:
            case "power":
                host.off_until = max(host.off_until, self.now + seconds)
                for agent in [agent for agent in host.agents if agent.is_alive]:
                    self.die(agent)
                self._lose_connections(host)
            case "cut":
                host.cut_until = max(host.cut_until, self.now + seconds)
                self._lose_connections(host)
                self.at(LEASE_S, lambda: self._lease_over(host))
                self.at(host.cut_until - self.now, lambda: self._relink(host))
            case "blocked":
                host.blocked_until = max(host.blocked_until, self.now + seconds)
                self.at(LEASE_S, lambda: self._lease_over(host))
                self.at(host.blocked_until - self.now, lambda: self._relink(host))
            case "crash" | "early":
                for agent in agents if kind == "crash" else host.agents:
                    if agent.is_alive:
                        self.die(agent)
            case "leave":
                for agent in agents:
                    self.leave(agent)
            case "kill":
                self.kill_shell()
            case "drain" | "revoke":
                self._take_out(host, kind)
            case "down":
                self.down_until[host.place] = self.now + seconds
                self.down_refuses[host.place] = self.rng.random() < 0.3
            case _:
                raise AssertionError(kind)

    def _take_out(self, host: Host, kind: str) -> None:
        if len(self.out) + 1 >= len(self.hosts):
            return  # at least one must be left
        self.out[host.name] = "revoked" if kind == "revoke" else self.out.get(host.name, "drained")
        self.tell_out(host.name)
        for agent in host.agents:
            if agent.is_linked and kind == "drain":
                self.at(self.rng.random() * 30.0, partial(self.leave, agent))
            elif agent.is_linked:
                self.unlink(agent)

    def tell_out(self, name: str) -> None:
        is_drained = self.out[name] == "drained"
        self.tell(places.HostDrained(name) if is_drained else places.HostRevoked(name))

    def _lose_connections(self, host: Host) -> None:
        if not host.is_queued:
            for handle in self.handles.values():
                handle.is_lost = handle.is_lost or handle.agent.host is host

    def accept(self, host: Host, tag: str, *, is_double: bool = False) -> Agent:
        """Accept a start at a place; the agent begins later."""
        agent = Agent(host, tag, self.now + self.rng.random() * LAG_S, is_double=is_double)
        host.agents = [each for each in host.agents if each.is_alive or each.is_linked]
        host.agents.append(agent)
        self.watch.accepted(agent)
        wait_s = self.rng.choice((0.05, 1.0, 5.0)) * (20.0 if self.chance("slow") else 1.0)
        self.at(wait_s, lambda: self._begin(agent))
        return agent

    def _begin(self, agent: Agent) -> None:
        if agent.state != "accepted":
            return
        if self.now < agent.host.off_until or self.chance("unborn"):
            self.die(agent)
            return
        agent.state = "begun"
        self.at(0.1 + self.rng.random(), lambda: self._run(agent))

    def _run(self, agent: Agent) -> None:
        if agent.state == "begun":
            agent.state, agent.has_run = "running", True
            self.at(self.rng.random(), lambda: self._link(agent))
            self._await_link(agent)

    def _await_link(self, agent: Agent) -> None:
        """Let an agent wait for the broker for a limited time."""
        agent.orphan_at = due = self.now + ORPHAN_S
        self.at_exactly(due, lambda: self._orphan(agent, due))

    def _orphan(self, agent: Agent, due: float) -> None:
        if agent.is_alive and not agent.is_linked and agent.orphan_at == due:
            self.die(agent)

    def _link(self, agent: Agent) -> None:
        host = agent.host
        if agent.state != "running" or agent.is_linked or self.out.get(host.name) == "revoked":
            return
        if self.left_at is not None or self.is_stopping:
            return  # there is no broker
        if not host.links(self.now):
            wait_s = max(host.off_until, host.cut_until, host.blocked_until) - self.now
            self.at(wait_s + 0.5, lambda: self._link(agent))
            return
        agent.is_linked = True
        self.note(f"linked {agent.tag}")
        if host.name in self.out:
            self.at(self.rng.random(), lambda: self.leave(agent))
        for _ in range((not host.is_linked) + self.chance("comes twice")):
            self.tell(places.AgentCame(host.name))
        host.is_linked = True

    def _relink(self, host: Host) -> None:
        for agent in host.agents:
            if agent.state == "running" and not agent.is_linked:
                self.at(self.rng.random() * 2.0, partial(self._link, agent))

    def _lease_over(self, host: Host) -> None:
        """Handle a host from which the broker has received nothing for the time of a lease."""
        if not host.links(self.now):
            for agent in host.agents:
                if agent.is_linked:
                    self.unlink(agent)

    def unlink(self, agent: Agent, *, left: bool = False) -> None:
        agent.is_linked = False
        host = agent.host
        self._await_link(agent)
        if host.is_linked and not any(each.is_linked for each in host.agents):
            host.is_linked = False
            jitter = self.rng.random()
            lost = places.AgentLost(host.name, jitter)
            self.tell(places.AgentLeft(host.name, jitter) if left else lost)

    def die(self, agent: Agent) -> None:
        if not agent.is_alive:
            return
        agent.state = "dead"
        self.note(f"dead {agent.tag}")
        if agent.is_linked:
            self.at(LEASE_S, lambda: self._lost(agent))

    def _lost(self, agent: Agent) -> None:
        if agent.is_linked:
            self.unlink(agent)

    def leave(self, agent: Agent) -> None:
        """End an agent in the usual way."""
        if agent.is_alive:
            agent.state = "dead"
            self.note(f"left {agent.tag}")
            if agent.is_linked:
                self.unlink(agent, left=True)

    def tell(self, event: places.Event) -> None:
        """Pass on a report of the broker, as the launcher does."""
        if self.shell is not None:
            self.shell.hear(event)

    def boot(self) -> None:
        if self.shell is not None:
            return
        self.note("boot")
        self.shell = Shell(self)
        self.shell.begin()
        for host in self.hosts.values():
            if host.is_linked:
                self.tell(places.AgentCame(host.name))
        if self.is_stopping:
            self.shell.hear(places.EndUnits(self.climate.grace_s))

    def kill_shell(self) -> None:
        if self.shell is None or self.left_at is not None:
            return
        self.shell.die()
        self.shell = None
        self.watch.new_life()
        for name in [n for n, h in self.handles.items() if not h.agent.host.is_queued]:
            del self.handles[name]
        self.at(self.climate.boot_s, self.boot)


class Shell:
    """Carries out the machine's actions at places that misbehave."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.rng = world.rng
        hosts = world.hosts.values()
        config = [PlaceConfig(h.name, (h.name,)) for h in hosts if not h.is_queued]
        queue = tuple(host.name for host in hosts if host.is_queued)
        config += [PlaceConfig("queue", queue)] if queue else []
        self.machine = Places(
            PlacesConfig(
                "r", tuple(config), min_hosts=world.climate.min_hosts,
                stop_grace_s=world.climate.grace_s,
            )
        )  # fmt: skip
        self.is_alive = True
        self.heard_at = 0.0
        self.wake_at = -1.0
        self.idle = 0
        self.began = False

    def die(self) -> None:
        self.is_alive = False

    def begin(self) -> None:
        tags = tuple(WrittenTag(host, tag) for host, tag in self.world.written.items())
        out = self.world.out.items()
        drained = tuple(host for host, why in out if why == "drained")
        revoked = tuple(host for host, why in out if why == "revoked")
        self.step(places.Began(tags, drained, revoked))

    def hear(self, event: places.Event) -> None:
        """Handle commands of the pipe, in order."""
        self.heard_at = max(self.heard_at, self.world.now + self.world.climate.latency_s)
        self._later(self.heard_at - self.world.now, event)

    def _later(self, delay_s: float, event: places.Event) -> None:
        self.world.at(delay_s, lambda: self.step(event))

    def step(self, event: places.Event) -> None:
        world = self.world
        if not self.is_alive or world.shell is not self or self.machine.left:
            return
        world.note(f"  {event}")
        world.watch.before(self.machine, event)
        actions = self.machine.step(event, world.now)
        self.machine.check()
        self.machine.hosts(world.now)
        world.watch.after(self.machine, event, actions)
        for action in actions:
            world.note(f"      {action}")
            self._do(action)
        self._wake(is_idle=not actions and isinstance(event, places.PlacesTicked))

    def _wake(self, *, is_idle: bool) -> None:
        """Step the machine at its deadline."""
        self.idle = self.idle + 1 if is_idle else 0
        assert self.idle < 20, "it asks for ticks and does nothing with them"
        due = self.machine.deadline()
        if self.machine.left or due == float("inf"):
            return
        due = max(due, self.world.now)
        if due == self.wake_at:
            return
        self.wake_at = due
        self.world.at_exactly(due, lambda: self._tick(due))

    def _tick(self, due: float) -> None:
        if self.wake_at == due and self.is_alive:
            self.wake_at = -1.0
            self.step(places.PlacesTicked(f"{self.rng.getrandbits(32):08x}"))

    def _do(self, action: places.Action) -> None:
        world = self.world
        match action:
            case places.WriteTag(host=host, tag=tag):
                self._write(host, tag)
            case places.DropTag(host=host, tag=tag):
                if world.written.get(host) == tag:
                    del world.written[host]
            case places.StartUnit() | places.Look() | places.Find() | places.StopUnits():
                self._call(action)
            case places.ShowNote() | places.GiveUp():
                pass
            case places.EndPlaces():
                world.left_at = world.now
                world.shell = None
                self.is_alive = False
                for name in [n for n, h in world.handles.items() if not h.agent.host.is_queued]:
                    del world.handles[name]
            case _:
                assert_never(action)

    def _write(self, host: str, tag: str) -> None:
        if self.world.chance("unwritable"):
            failed = places.Failed(host, tag, PlaceCall.WRITE, "full", jitter=self.rng.random())
            self._later(0.001, failed)
            return
        took_s = self.rng.choice((0.001, 0.2))
        self.world.at(took_s * self.rng.random(), lambda: self._is_written(host, tag))
        self._later(took_s, places.TagWritten(host, tag))

    def _is_written(self, host: str, tag: str) -> None:
        """Record that the line is written; a kill before this point loses it."""
        if self.is_alive:
            self.world.written[host] = tag

    def _call(
        self, action: places.StartUnit | places.Look | places.Find | places.StopUnits
    ) -> None:
        """Call a place; the effect remains even if the shell dies meanwhile."""
        world, call = self.world, _CALLS[type(action)]
        host = world.hosts[action.host]
        latency_s = world.climate.latency_s * (0.5 + self.rng.random())
        if world.chance("hang"):
            wait_s = 20.0
            if call is PlaceCall.START and self.rng.random() < 0.5:
                world.at(self.rng.random() * EFFECT_S, lambda: self._start(host, action.tag))
            self._fail(action, call, wait_s, "no answer")
            return
        is_down = world.now < world.down_until.get(host.place, 0.0)
        refuses = world.down_refuses.get(host.place, False) if is_down else world.chance("refused")
        if is_down or refuses or world.chance("busy"):
            self._fail(action, call, latency_s, "not now", refused=refuses)
            return
        if not host.answers(world.now) and call is not PlaceCall.LOOK:
            self._fail(action, call, self.rng.choice((0.1, 10.0)), "no route")
            return
        world.at(min(latency_s, EFFECT_S), lambda: self._answer(action, host))

    def _fail(
        self,
        action: places.Action,
        call: PlaceCall,
        wait_s: float,
        why: str,
        *,
        refused: bool = False,
    ) -> None:
        assert isinstance(action, places.StartUnit | places.Look | places.Find | places.StopUnits)
        retry_after_s = self.rng.choice((None, 5.0, 2000.0 if self.rng.random() < 0.1 else 1.0))
        self._later(
            wait_s,
            places.Failed(
                action.host, action.tag, call, why, refused=refused,
                retry_after_s=retry_after_s, jitter=self.rng.random(),
            ),
        )  # fmt: skip

    def _answer(self, action: places.Action, host: Host) -> None:
        match action:
            case places.StartUnit(tag=tag):
                units = self._start(host, tag)
                if self.world.chance("answer lost"):
                    self._fail(action, PlaceCall.START, 0.0, "lost")
                else:
                    self.step(places.StartAccepted(host.name, tag, units))
            case places.Look(tag=tag, units=units):
                seen = tuple(self._sight(unit) for unit in units)
                self.step(places.UnitsLooked(host.name, tag, seen, self.rng.random()))
            case places.Find(tag=tag):
                self.step(
                    places.UnitsFound(host.name, tag, self._find(host, tag), self.rng.random())
                )
            case places.StopUnits(units=units):
                self._stop(action, host, units)
            case _:
                raise AssertionError(action)

    def _unit(self, agent: Agent) -> str:
        self.world.count += 1
        unit = f"u{self.world.count}"
        self.world.handles[unit] = Handle(agent)
        return unit

    def _units(self, host: Host, tag: str) -> dict[str, Agent]:
        """Return the living agents of a tag, with a valid handle of each."""
        handles = self.world.handles
        found = {}
        for agent in host.agents:
            if agent.tag == tag and agent.is_alive:
                unit = next(
                    (u for u, h in handles.items() if h.agent is agent and not h.is_lost), ""
                )
                found[unit or self._unit(agent)] = agent
        return found

    def _start(self, host: Host, tag: str) -> tuple[str, ...]:
        world = self.world
        if there := self._units(host, tag):
            return tuple(there)
        if world.chance("forgets"):
            ghost = Agent(host, tag, world.now, state="dead")
            return (self._unit(ghost),)
        agents = [world.accept(host, tag)]
        if world.chance("twice"):
            agents.append(world.accept(host, tag, is_double=True))
        return tuple(self._unit(agent) for agent in agents)

    def _sight(self, unit: str) -> Sight:
        world, handle = self.world, self.world.handles.get(unit)
        if handle is None or handle.is_lost or world.chance("cannot tell"):
            return Sight(unit, PlaceState.UNKNOWN)
        agent = handle.agent
        if agent.is_alive and world.chance("lies ended"):
            agent.is_disowned = True
            return Sight(unit, PlaceState.GONE)
        if not agent.is_alive and world.chance("lies alive"):
            return Sight(
                unit, self.rng.choice((PlaceState.STARTING, PlaceState.RUNNING, PlaceState.WAITING))
            )
        if not agent.is_alive:
            return Sight(
                unit, PlaceState.GONE if agent.has_run else PlaceState.NEVER_CAME, "it ended"
            )
        begins = PlaceState.WAITING if agent.host.is_queued else PlaceState.STARTING
        states = {"accepted": begins, "begun": PlaceState.STARTING, "running": PlaceState.RUNNING}
        return Sight(unit, states[agent.state])

    def _find(self, host: Host, tag: str) -> tuple[str, ...]:
        world = self.world
        there = {u: a for u, a in self._units(host, tag).items() if world.now >= a.found_from}
        if there and world.chance("finds nothing"):
            for agent in there.values():
                agent.is_disowned = True
            return ()
        if not there and world.chance("finds ended"):
            return (self._unit(Agent(host, tag, world.now, state="dead")),)
        return tuple(there)

    def _stop(self, action: places.StopUnits, host: Host, units: tuple[str, ...]) -> None:
        world = self.world
        if world.chance("stop fails"):
            self._fail(action, PlaceCall.STOP, 0.0, "no")
            return
        if not world.chance("ignores stop"):
            for unit in units:
                handle = world.handles.get(unit)
                if handle is not None:
                    wait_s = self.rng.random() * min(action.grace_s, 1.0)
                    world.at(wait_s, partial(world.leave, handle.agent))
        self.step(places.Stopped(host.name, action.tag))


_CALLS = {
    places.StartUnit: PlaceCall.START, places.Look: PlaceCall.LOOK, places.Find: PlaceCall.FIND,
    places.StopUnits: PlaceCall.STOP,
}  # fmt: skip


def many(first: int, count: int) -> None:
    """Run many seeds and print the figures."""
    began, events, seconds, broken = time.monotonic(), 0, 0.0, 0
    faults: Counter[str] = Counter()
    for seed in range(first, first + count):
        world = World(seed)
        try:
            world.run()
        except (AssertionError, LookupError, TypeError, ValueError, AttributeError) as error:
            broken += 1
            where = traceback.extract_tb(error.__traceback__)[-1]
            print(f"seed {seed}: {error!r:.300} ({where.name}, line {where.lineno})")
        events += world.events
        seconds += world.now
        faults += world.faults
    took_s = time.monotonic() - began
    print(f"{count} seeds, {broken} broken, {sum(faults.values())} faults, {events} events")
    print(f"in {took_s:.1f} s: {count / took_s:.0f} seeds/s, {seconds / took_s:.0f} virtual s/s")
    print(dict(faults))


def replay(seed: int, *, trace: bool) -> None:
    """Run one seed and print its result."""
    world = World(seed, say=print if trace else None)
    print(world.climate)
    world.run()
    print(f"seed {seed}: {world.now:.2f} s, {world.events} events, trace {world.trace:08x}")
    print(dict(world.faults))


if __name__ == "__main__":
    numbers = [int(word) for word in sys.argv[1:] if word.isdigit()]
    if len(numbers) == 2:
        many(*numbers)
    else:
        replay(numbers[0], trace="--trace" in sys.argv)
