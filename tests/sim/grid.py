"""Other hosts of the simulated world: they vanish, return, sleep, leave, are cut off, and lie.

A world has them only on request (`--grid`), so other histories stay the same. Node 0 is the
launcher's host; each other node is a separate host, whose messages come through the remote door of
the broker. The world itself starts agents there, in place of the places.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from resilient_scoop.core.broker.host_life import HostState
from resilient_scoop.core.broker.hosts import FLAPS_MAX, FLAPS_S
from resilient_scoop.core.events import AgentOver, DrainHost, Event, JoinHost, RevokeHost
from resilient_scoop.ids import PeerId
from tests.sim.cancels import Broken
from tests.sim.handed import Handed, Keeping
from tests.sim.lies import Liar

if TYPE_CHECKING:
    from resilient_scoop.core.broker.host_life import KnownHost
    from resilient_scoop.core.events import Change
    from tests.sim.host import AgentShell
    from tests.sim.launcher import Launcher
    from tests.sim.shells import BrokerShell, Process
    from tests.sim.world import World

KINDS = ("off", "apart", "deaf", "mute", "asleep", "flap", "drain", "revoke", "lie", "gone")
_WEIGHTS = {"gone": 0.2, "revoke": 0.4, "drain": 0.7, "flap": 0.3}
LATE_S = 1.0
"""How much later than after its heartbeat timeout a host may be found to be lost."""


@dataclass(frozen=True, slots=True)
class Weather:
    """The hosts of a world, and the rates of their faults (per second)."""

    workers: tuple[int, ...]  # number of workers of each host, the launcher's first
    latency_s: tuple[float, ...]
    orphan_s: float = 30.0
    rates: dict[str, float] = field(default_factory=dict)
    keeping: Keeping = field(default_factory=Keeping)

    @classmethod
    def draw(cls, rng: random.Random) -> Weather:
        """Draw the faults of a seed."""
        hosts = rng.choice((1, 1, 2, 2, 3, 3, 5, 8))
        kinds = [kind for kind in KINDS if rng.random() < 0.4]
        rate = rng.choice((0.2, 0.6, 1.5)) / max(1, len(kinds)) ** 0.5
        local = rng.choice((0, 1, 1, 2))
        return cls(
            (local, *(rng.choice((1, 1, 2, 3)) for _ in range(hosts))),
            (0.0002, *(rng.choice((0.001, 0.01, 0.05, 0.1)) for _ in range(hosts))),
            rng.choice((15.0, 40.0)),
            {kind: rate * _WEIGHTS.get(kind, 1.0) for kind in kinds},
            Keeping.draw(rng),
        )


class Grid:
    """The other hosts of one world, and their checks."""

    def __init__(self, world: World, weather: Weather) -> None:
        self.world = world
        self.weather = weather
        self.rng = random.Random(f"what hosts of {world.seed} do")
        self.launcher: Launcher
        self.node_of: dict[bytes, int] = {}  # keys of processes of other hosts
        self.blocked: dict[tuple[int, int], float] = {}  # (node, direction) -> end of the cut
        self.off: set[int] = set()  # nodes without power
        self.barred: set[int] = set()  # drained or cut-off nodes: no agent is started there
        self.drains: dict[int, float] = {}  # requested from each broker: node -> deadline
        self.revoked: set[int] = set()
        self.counted: dict[int, int] = {}  # items done before they were cut off
        self.heard_at: dict[int, float] = {}
        self.calm_since: dict[int, float] = {}  # time since which nothing has happened to a host
        self.liars: set[int] = set()
        self.silent_since: dict[int, float] = {}
        self.up_since: dict[int, float] = {}
        self.lost_at: dict[int, list[float]] = {}  # lost hosts of one broker
        self.liar = Liar(world, self)
        self.handed = Handed(world, strict=weather.keeping.strict)
        # reports of the ends of agents
        self.chances = random.Random(f"what hosts of {world.seed} say")
        self.says_over = self.chances.choice((0.0, 0.5, 1.0))

    @property
    def nodes(self) -> range:
        """The other hosts."""
        return range(1, len(self.weather.workers))

    def name(self, node: int) -> str | None:
        """Return the name of a host; None for the launcher's."""
        return f"h{node}" if node else None

    def host_of(self, peer: bytes) -> str | None:
        """Return the host whose key a process has."""
        return self.name(self.node_of.get(peer, 0))

    def agent(self, node: int) -> AgentShell | None:
        found = self.world.agents[node]
        return found if found is not None and found.alive else None

    def processes(self, node: int) -> list[Process]:
        """Return the processes of a host, its agent first."""
        agent = self.agent(node)
        return [] if agent is None else [agent, *self.workers(node)]

    def workers(self, node: int) -> list[Process]:
        there = self.world.workers.values()
        return [worker for worker in there if worker.agent.node == node]

    def start(self, node: int) -> None:
        """Start an agent, unless one already runs there."""
        if self.agent(node) is None and node not in self.off | self.barred:
            self.launcher.start_agent(node)

    def over(self, agent: AgentShell) -> None:
        """Handle the end of an agent: its host has noticed it, and may report it, late or never (HO7)."""
        died = not agent.machine.left
        if agent.node not in self.off and self.chances.random() < self.says_over:
            late_s = self.chances.choice((0.05, 0.3, 2.0, 12.0)) * (0.5 + self.chances.random())
            self.world.at(late_s, None, self._says_over, agent.node, agent.id, died)

    def _says_over(self, node: int, agent: PeerId, died: bool) -> None:
        self.world.faults["host over"] += 1
        self.world.note("host over", None, node)
        self._tell_broker(AgentOver(f"h{node}", agent, died))

    def ended(self, node: int) -> None:
        """Start an agent again some time after its end, if there is a launcher."""
        self.world.at(0.1 + 2.0 * self.rng.random(), None, self._start_again, node)

    def _start_again(self, node: int) -> None:
        if not self.world.stopping:
            self.start(node)

    def passes(self, peer: bytes, way: int) -> bool:
        """Return whether a message gets through: 0 up, 1 down."""
        node = self.node_of.get(peer, 0)
        return not node or self.blocked.get((node, way), 0.0) <= self.world.now

    def passes_down(self, node: int) -> bool:
        return self.blocked.get((node, 1), 0.0) <= self.world.now

    def keep(self, peer: bytes, frames: Sequence[bytes]) -> None:
        """Let an agent keep a message that passes it."""
        agent = self.agent(self.node_of.get(peer, 0))
        if agent is not None and agent.is_remote and peer != agent.id and agent.machine.relay:
            agent.machine.relay.up(PeerId(peer), frames)
            self.handed.up(frames)

    def latency_s(self, peer: bytes) -> float:
        return self.weather.latency_s[self.node_of.get(peer, 0)]

    def arrives(self, peer: bytes) -> None:
        """Record that a message of a process reaches the broker."""
        if node := self.node_of.get(peer, 0):
            self.heard_at[node] = self.world.now

    def plan(self, launcher: Launcher) -> None:
        self.launcher = launcher
        for kind in KINDS:
            rate, at_s = self.weather.rates.get(kind, 0.0), 0.0
            while rate > 0 and (at_s := at_s + self.rng.expovariate(rate)) < self._until():
                self.world.at(at_s, None, self.happens, kind)

    def _until(self) -> float:
        return self.world.climate.until + 2.0

    def happens(self, kind: str) -> None:
        """Apply a random fault to a host."""
        world = self.world
        if world.stopping:
            return
        if kind == "gone":
            self.launcher.gone_alone()
            return
        node = self.rng.choice(self.nodes)
        seconds = self.rng.choice((0.3, 3.0, 15.0, 40.0)) * self.rng.random()
        world.faults[f"host {kind}"] += 1
        world.note(f"host {kind} {node}", None, round(seconds, 3))
        match kind:
            case "off":
                self.switch_off(node, seconds)
            case "apart" | "deaf" | "mute":
                self._block(node, kind, seconds)
            case "asleep":
                self.disturb(node)
                for process in self.processes(node):
                    process.pause(seconds)
            case "flap":
                self._flap(node, 3)
            case "drain":
                self._drain(node)
            case "revoke":
                self._revoke(node)
            case "lie":
                self.liar.lie(node)
            case _:
                raise AssertionError(kind)

    def disturb(self, node: int) -> None:
        self.calm_since[node] = math.inf

    def switch_off(self, node: int, seconds: float) -> None:
        """Switch a host off, and on again later."""
        self.disturb(node)
        self.off.add(node)
        agent = self.agent(node)
        if agent is not None:
            agent.die()
        self.world.at(seconds, None, self._switch_on, node)

    def _switch_on(self, node: int) -> None:
        self.off.discard(node)
        self._start_again(node)

    def _block(self, node: int, kind: str, seconds: float) -> None:
        self.disturb(node)
        if kind != "mute" and self.passes_down(node):
            self.silent_since[node] = self.world.now
        for way in {"apart": (0, 1), "mute": (0,), "deaf": (1,)}[kind]:
            until = self.blocked.get((node, way), 0.0)
            self.blocked[node, way] = max(until, self.world.now + seconds)

    def _flap(self, node: int, times: int) -> None:
        """Make a host unreachable for longer than the heartbeat timeout, several times."""
        gap_s = self.world.climate.lease_s + 1.5
        self._block(node, "apart", gap_s)
        if times > 1:
            self.world.at(gap_s + 1.5, None, self._flap, node, times - 1)

    def _tell_broker(self, event: Event) -> None:
        broker = self.world.broker
        if broker is not None and broker.alive and broker.open:
            broker.exchange.add(event)
            broker._soon()

    def _drain(self, node: int) -> None:
        deadline_s = self.rng.choice((None, None, 0.5, 5.0))
        self.drains[node] = self.world.now + (math.inf if deadline_s is None else deadline_s)
        self.barred.add(node)
        if deadline_s is not None or self.calm_since.get(node, 0.0) is math.inf:
            self.disturb(node)
        self._tell_broker(DrainHost(f"h{node}", deadline_s))
        self.world.at(5.0 + 40.0 * self.rng.random(), None, self._join, node)

    def _revoke(self, node: int) -> None:
        self.disturb(node)
        self.revoked.add(node)
        self.barred.add(node)
        self._tell_broker(RevokeHost(f"h{node}"))
        self.world.at(5.0 + 40.0 * self.rng.random(), None, self._join, node)

    def _was_cut(self, node: int) -> None:
        """Handle a host that the broker has cut off: check the reason, and enroll it again."""
        self.disturb(node)
        if node not in self.revoked:
            self.revoked.add(node)
            self.barred.add(node)
            self.world.at(5.0 + 40.0 * self.rng.random(), None, self._join, node)

    def _join(self, node: int) -> None:
        """Enroll a host again; processes admitted by its old key are gone."""
        if node in self.revoked and (agent := self.agent(node)) is not None:
            agent.die()
        self.revoked.discard(node)
        self.barred.discard(node)
        self.drains.pop(node, None)
        self.counted.pop(node, None)
        self._tell_broker(JoinHost(f"h{node}"))
        self.ended(node)

    def opened(self, broker: BrokerShell, *, adopt: bool) -> None:
        """Repeat to a new broker the requests to the last one."""
        self.counted.clear()
        self.lost_at.clear()
        if adopt:
            there = [node for node in self.nodes if node not in self.barred]
            broker.broker.membership.expect(f"h{node}" for node in there)
        for node, until in self.drains.items():
            left_s = None if until == math.inf else max(0.0, until - self.world.now)
            broker.exchange.add(DrainHost(f"h{node}", left_s))
            self.disturb(node)
        for node in sorted(self.revoked):
            broker.exchange.add(RevokeHost(f"h{node}"))

    def note(self, text: str) -> None:
        """Check a message of the broker to the user: no honest host is accused."""
        self.world.note(f"says {text}")
        honest = [node for node in self.nodes if node not in self.liars]
        for node in honest:
            name = f"host h{node} is"
            accused = f"{name} dropped" in text or "broke the rules" in text
            if accused and (f"of host h{node} " in text or name in text):
                raise Broken(f"GU2: an honest host is accused: {text}")
        for node in self.nodes:
            if text.startswith(f"host h{node} is lost"):
                self._lost(node, text)
            elif text.startswith(f"host h{node} gets no work"):
                self.lost_at.pop(node)

    def _lost(self, node: int, text: str) -> None:
        now, broker = self.world.now, self.world.broker
        assert broker is not None
        self.lost_at.setdefault(node, []).append(now)
        heard_at = self.heard_at.get(node, 0.0)
        agent = self.agent(node)
        is_known = (
            agent is not None
            and agent.machine.link.received > 0  # that broker has answered the request
            and agent.machine.link.epoch == broker.broker.epoch
        )
        if "has died" in text and is_known:
            raise Broken(f"HO7: h{node} has an agent that lives, and counts as dead")
        silent_s = now - heard_at - sum(gap_s for at, gap_s in broker.stalls if at > heard_at)
        if "nothing was heard" in text and silent_s < broker.config.heartbeat_timeout_s - 0.1:
            raise Broken(f"HO3: h{node} is lost after {silent_s:.1f} s of silence")

    def committed(self, changes: Sequence[Change]) -> None:
        self.liar.committed(changes)
        self.handed.committed(changes)

    def turned(self, shell: BrokerShell) -> None:
        """Check the hosts after a broker's turn."""
        broker, now = shell.broker, self.world.now
        broker.hosts.check()
        for cut in shell.exchange.cuts:
            self._was_cut(int(cut.host[1:]))
        shell.exchange.cuts.clear()
        root = broker.members.root
        if root is not None and root[1] in self.node_of:
            raise Broken("GU1: a guest runs the script")
        for node in self.nodes:
            host = broker.hosts.by_name.get(f"h{node}")
            if host is None:
                continue
            silent_s = now - max(self.heard_at.get(node, 0.0), shell.woke_at)
            if host.peers and silent_s > shell.config.heartbeat_timeout_s + LATE_S:
                raise Broken(
                    f"HO2: {host.name} is {host.state.value} {silent_s:.1f} s after its end"
                )
            self._check_down(shell, node, host)
            if (
                host.end_sent_at == now
                and host.empty_by == math.inf
                and host.state is HostState.DRAINING
            ):
                held = [each.name for each in host.peers.values() if each.leases]
                if held:
                    raise Broken(f"HO4: {held} are told to end, and have begun something")
            if host.state is HostState.REVOKED:
                done = self.counted.setdefault(node, host.done)
                if host.peers or host.done != done:
                    raise Broken(f"HO6: {host.name} is cut off, and something of it counts")
            elif host.state is not HostState.UP:
                seated = [each.name for each in broker.scheduler.workers.values()
                          if each.host == host.name]  # fmt: skip
                if seated:
                    raise Broken(f"HO1: {host.name} is {host.state.value}, and {seated} get work")

    def _check_down(self, shell: BrokerShell, node: int, host: KnownHost) -> None:
        """Check that hosts that receive nothing, or flap, are detected, and that a quarantine ends."""
        now, timeout_s = self.world.now, shell.config.heartbeat_timeout_s
        if host.state is not HostState.UP:
            self.up_since[node] = now
        since = max(self.silent_since.get(node, now), self.up_since.get(node, now))
        silent_s = now - max(since, shell.woke_at)
        slack_s = LATE_S + 2 * shell.config.beat_s + 2 * self.weather.latency_s[node]
        is_unresponsive = (
            not self.passes_down(node) and host.state is HostState.UP and bool(host.peers)
        )
        if (
            is_unresponsive
            and silent_s > timeout_s + slack_s
            and now - shell.opened_at > timeout_s + slack_s
        ):
            raise Broken(f"HO2: {host.name} hears nothing for {silent_s:.1f} s, and is UP")
        losses = [at for at in self.lost_at.get(node, ()) if now - at < FLAPS_S]
        if len(losses) >= FLAPS_MAX and host.state is HostState.UP:
            raise Broken(f"HO5: {host.name} was lost {len(losses)} times, and is UP")
        if (
            host.state is HostState.QUARANTINED
            and now - max(host.free_at, shell.woke_at) > LATE_S + 1.0
        ):
            raise Broken(f"HO5: {host.name} is in quarantine after its end")

    def left_at_work(self, node: int, path: str) -> None:
        """Note that a worker learned of a drain while it was executing an item."""
        climate = self.world.climate
        others = any(climate.rates.values()) or any(climate.points.values())
        if node in self.drains and not others and node not in self.calm_since:
            raise Broken(f"HO4: {path} is lost in the drain of h{node}, which has no deadline")
