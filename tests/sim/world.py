"""The world in which the real machines live: virtual time, one random generator, a network, a disk.

Every event is an entry of one heap, drawn from one seed: the same seed gives the same history to
the last byte (`trace`). A paused process handles its due events when it continues; the events of a
dead process never happen.
"""

from __future__ import annotations

import heapq
import random
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from resilient_scoop.ids import PeerId
from tests.fakes import MemoryJournal
from tests.sim import programs, scripts
from tests.sim.checkers import RUN, Checks
from tests.sim.compactions import FileJournal, Habit
from tests.sim.missing_functions import MissingFunctions
from tests.sim.troubles import Hosts, Trouble

if TYPE_CHECKING:
    from tests.sim.grid import Grid, Weather
    from tests.sim.host import AgentShell
    from tests.sim.shells import BrokerShell, Process
    from tests.sim.worker import WorkerShell

LIMIT_S = 240.0
"""Virtual time after the last fault in which the run must have ended (PROGRESS)."""

KINDS = (
    "worker", "origin", "agent", "broker", "both", "power", "pause", "cut", "apart", "slow", "full",
    "stop",
)  # fmt: skip
POINTS = ("turn", "commit", "boot", "recovered", "settled", "flushed", "greeted", "intent")
CHECKPOINT_POINTS = ("checkpointed", "saved")

Entry = tuple[float, int, "Process | None", Callable[..., None], tuple[Any, ...]]
"""When, which of those, who does it (None: the world itself), what, with what."""


class Died(BaseException):
    """The process that was running is dead: unwinds to the world's loop."""


@dataclass(frozen=True, slots=True)
class Climate:
    """The fault rates of a seed (swarm testing: they differ between seeds)."""

    latency_s: float
    commit_s: float
    boot_s: float
    lease_s: float
    rates: dict[str, float]  # kind -> mean faults per second
    points: dict[str, float]  # label -> chance of dying there
    until: float  # time of the last fault
    twice: float  # chance that a message arrives a second time, late
    late: float  # chance that a message of a broken connection arrives after all
    nodes: int
    workers: int  # workers on each host
    small: bool  # sizes of pages, of grants and of the memory for arguments
    edits: bool  # the script changes after a full stop
    written: float = 0.7  # chance that the body records a commit
    unloadable: float = 0.0  # chance that a checkpoint cannot be loaded
    fallback: float = 0.0  # chance that a block continues from an older one
    asks: float = 0.0  # how often per second checkpoints are requested
    compaction: Habit | None = None
    missing_functions: float = 0.0  # chance that workers lack functions in a life of the run
    hosts: Trouble | None = None
    grid: Weather | None = None

    @classmethod
    def draw(cls, rng: random.Random) -> Climate:
        kinds = [kind for kind in KINDS if rng.random() < 0.4]
        weights = {"power": 0.15, "stop": 0.1, "full": 0.2, "slow": 0.3, "origin": 0.5}
        rate = rng.choice((0.2, 1.0, 3.0)) / max(1, len(kinds)) ** 0.5
        points = [label for label in POINTS if rng.random() < 0.25]
        return cls(
            latency_s=rng.choice((0.0002, 0.005, 0.05)),
            commit_s=rng.choice((0.0005, 0.01, 0.1)),
            boot_s=rng.choice((0.05, 0.3, 2.0)),
            lease_s=rng.choice((3.0, 10.0)),
            rates={kind: rate * weights.get(kind, 1.0) for kind in kinds},
            points={label: rng.choice((0.01, 0.1)) for label in points},
            until=rng.choice((0.0, 2.0, 4.0, 10.0)),
            twice=rng.choice((0.0, 0.0, 0.05)),
            late=rng.choice((0.0, 0.5)),
            nodes=rng.choice((1, 1, 2)),
            workers=rng.choice((1, 2, 2, 3)),
            small=rng.random() < 0.5,
            edits=rng.random() < 0.1,
        )


@dataclass(slots=True)
class Wire:
    """A peer's connection to the broker, first in first out while it holds."""

    gen: int = 0
    up: bool = True
    # time of the last arrival, in each direction
    times: list[float] = field(default_factory=lambda: [0.0, 0.0])
    # messages sent while there was no broker
    waiting: list[Sequence[bytes]] = field(default_factory=list)


class World:
    """One seed."""

    def __init__(
        self,
        seed: int,
        *,
        steps: list[programs.Step] | None = None,
        climate: Climate | None = None,
        say: Callable[[str], None] | None = None,
        troubled: bool = False,
        grid: bool = False,
    ) -> None:
        self.seed = seed
        self.rng = random.Random(seed)
        self.now = 0.0
        self.say = say
        self.climate = Climate.draw(self.rng) if climate is None else climate
        self.grid = self._add_grid(drawn=grid)
        self.steps_drawn = steps is None
        if steps is None:
            drawn = scripts.draw(self.rng, plain=self.climate.edits)
            steps = scripts.lengthen(random.Random(f"long {seed}"), drawn)
            steps = scripts.with_glances(random.Random(f"glance {seed}"), steps)
        self.steps = steps
        self._add_checkpoints(drawn=climate is None)
        self.edited = False
        self.heap: list[Entry] = []
        self.count = 0
        self.events = 0
        self.trace = 0
        self.faults: Counter[str] = Counter()
        self.journal = self._add_compaction(drawn=climate is None)
        if climate is None:
            missing_functions = random.Random(f"lack of {seed}").choice((0.0, 0.0, 0.0, 0.5))
            self.climate = replace(
                self.climate, missing_functions=0.0 if self.grid else missing_functions
            )
        if troubled:
            trouble = Trouble.draw(random.Random(f"troubles of {seed}"))
            self.climate = replace(self.climate, hosts=trouble)
        self.missing_functions = MissingFunctions(self)
        self.hosts = Hosts(self)
        self.checks = Checks(self)
        self.wires: dict[bytes, Wire] = {}
        self.broker: BrokerShell | None = None
        self.agents: list[AgentShell | None] = [None] * self.climate.nodes
        self.workers: dict[bytes, WorkerShell] = {}  # alive workers, including the origin
        self.slow_until = 0.0
        self.full_until = 0.0
        self.stopping = False
        self.ended = False
        self.life = 0  # messages of the launcher

    def _add_grid(self, *, drawn: bool) -> Grid | None:
        """Return the other hosts, if there are any; they are drawn separately, too."""
        from tests.sim.grid import Grid, Weather

        weather = self.climate.grid
        if drawn and weather is None:
            weather = Weather.draw(random.Random(f"weather of the grid of {self.seed}"))
        if weather is None:
            return None
        nodes = len(weather.workers)
        self.climate = replace(self.climate, grid=weather, nodes=nodes, edits=False)
        return Grid(self, weather)

    def _add_checkpoints(self, *, drawn: bool) -> None:
        """Draw what concerns checkpoints separately: other worlds are unchanged."""
        rng = random.Random(f"checkpoints of {self.seed}")
        chances = [rng.choice((1.0, 0.7, 0.3)), rng.choice((0.0, 0.0, 0.2)), rng.choice((0.0, 0.3))]
        points = {each: rng.choice((0.02, 0.2)) for each in CHECKPOINT_POINTS if rng.random() < 0.4}
        self.climate = replace(self.climate, points={**self.climate.points, **points})
        if drawn:
            self.climate = replace(
                self.climate, written=chances[0], unloadable=chances[1], fallback=chances[2]
            )
        if self.steps_drawn:
            self.steps = scripts.with_checkpoints(rng, self.steps)
        if drawn:
            self.climate = replace(self.climate, asks=rng.choice((0.0, 0.0, 0.0, 0.3, 1.0)))
        if self.steps_drawn and not self.climate.edits:
            differing = random.Random(f"callables of {self.seed}")
            self.steps = scripts.with_differing(differing, self.steps)
            ventures = random.Random(f"ventures of {self.seed}")
            self.steps = scripts.with_ventures(ventures, self.steps)
            threads = random.Random(f"threads of {self.seed}")
            self.steps = scripts.with_threads(threads, self.steps)

    def _add_compaction(self, *, drawn: bool) -> MemoryJournal:
        """Return the journal; whether it is compacted is drawn separately, too."""
        rng = random.Random(f"compactions of {self.seed}")
        if drawn:
            self.climate = replace(self.climate, compaction=Habit.draw(rng))
        habit = self.climate.compaction
        if habit is None:
            return MemoryJournal(RUN)
        return FileJournal(RUN).keep_on(rng, keep_history=habit.keep_history)

    def at(self, delay_s: float, who: Process | None, do: Callable[..., None], *args: Any) -> None:
        self.count += 1
        heapq.heappush(self.heap, (self.now + delay_s, self.count, who, do, args))

    def run(self) -> World:
        """Run to the end of the script; the checks raise where something is wrong."""
        from tests.sim.launcher import Launcher

        launcher = Launcher(self)
        launcher.start(adopt=False)
        launcher.plan_faults()
        limit = self.climate.until + LIMIT_S
        while self.heap and not self.ended:
            now, _, who, do, args = heapq.heappop(self.heap)
            if who is not None:
                if not who.alive:
                    continue
                if who.paused_until > now:
                    self.now = now
                    self.at(who.paused_until - now, who, do, *args)
                    continue
            self.now = now
            self.events += 1
            if now > limit:
                break
            self.note(do.__name__, who)
            try:
                do(*args)
            except Died:
                self.note("died", who)
        self.checks.at_end()
        return self

    def note(self, what: str, who: Process | None = None, *more: Any) -> None:
        """Add a line to the trace."""
        line = f"{self.now:.6f} {'' if who is None else who.name} {what}"
        self.trace = zlib.crc32(line.encode(), self.trace)
        if self.say is not None:
            self.say(f"{line} {' '.join(map(str, more))}")

    def chance(self, probability: float) -> bool:
        return probability > 0 and self.rng.random() < probability

    def point(self, label: str, who: Process) -> None:
        """Let the process die here, perhaps."""
        chance = self.climate.points.get(label)
        if chance and self.now < self.climate.until and self.rng.random() < chance:
            self.dies(label, who)

    def dies(self, label: str, who: Process, how: Callable[[], None] | None = None) -> None:
        """Let a process die at a point; `how`: which others die with it."""
        self.faults[f"at {label}"] += 1
        self.note(f"dies at {label}", who)
        (who.die if how is None else how)()
        raise Died

    def new_id(self, role: str) -> PeerId:
        return PeerId(role[:1].upper().encode() + self.rng.randbytes(8))

    def send_up(self, peer: bytes, frames: Sequence[bytes], *, kept: bool = True) -> None:
        """Send to the broker; `kept`: the agent of another host may keep a copy."""
        if self.grid is not None and kept:
            self.grid.keep(peer, frames)
        wire = self.wires.setdefault(peer, Wire())
        if not wire.up:
            if self.chance(0.5):
                wire.waiting.append(frames)
            return
        if self.grid is not None and not self.grid.passes(peer, 0):
            return
        self._send(wire, 0, None, self._arrive_up, peer, frames)

    def send_down(self, peer: bytes, frames: Sequence[bytes]) -> None:
        wire = self.wires.get(peer)
        to = self.process(peer)
        if self.grid is not None:
            if not self.grid.passes(peer, 1):
                return
            agent = self.grid.agent(self.grid.node_of.get(peer, 0))
            if agent is not None and agent.is_remote and agent.id != peer:
                if wire is not None and wire.up:
                    self._send(wire, 1, agent, agent.pass_down, peer, frames)
                return
        if wire is not None and wire.up and to is not None:
            self._send(wire, 1, to, to.hear, peer, frames)

    def _send(
        self, wire: Wire, way: int, who: Process | None, do: Callable[..., None], peer: bytes,
        frames: Sequence[bytes],
    ) -> None:  # fmt: skip
        base_s = self.climate.latency_s if self.grid is None else self.grid.latency_s(peer)
        latency_s = base_s * (0.5 + self.rng.random())
        wire.times[way] = max(wire.times[way], self.now + latency_s)
        self.at(wire.times[way] - self.now, who, self._pass, wire, wire.gen, do, peer, frames)
        if self.now < self.climate.until and self.chance(self.climate.twice):
            again_s = latency_s + self.rng.random()
            self.at(again_s, who, self._pass, wire, wire.gen, do, peer, frames)

    def _pass(
        self, wire: Wire, gen: int, do: Callable[..., None], peer: bytes, frames: Sequence[bytes]
    ) -> None:
        if gen != wire.gen and not self.chance(self.climate.late):
            return
        do(peer, frames)

    def _arrive_up(self, peer: bytes, frames: Sequence[bytes]) -> None:
        broker = self.broker
        if broker is None or not broker.alive or not broker.open:
            if self.chance(0.5):
                self.wires[peer].waiting.append(frames)
        elif broker.paused_until > self.now:
            self.at(broker.paused_until - self.now, None, self._arrive_up, peer, frames)
        else:
            broker.receive(peer, frames)

    def arrive_as(self, peer: bytes, frames: Sequence[bytes], host: str) -> None:
        """Deliver a message of a host under any identity."""
        broker = self.broker
        if broker is not None and broker.alive and broker.open:
            broker.receive(peer, frames, host)

    def cut(self, peer: bytes, seconds: float) -> None:
        """Break a connection; messages on it are lost, or arrive too late."""
        wire = self.wires.get(peer)
        if wire is not None and wire.up:
            wire.gen += 1
            wire.up = False
            self.at(seconds, None, self._mend, peer, wire)

    def _mend(self, peer: bytes, wire: Wire) -> None:
        wire.gen += 1
        wire.up = True
        waiting, wire.waiting = wire.waiting, []
        for frames in waiting:
            self.send_up(peer, frames)
        process = self.process(peer)
        if process is not None and self.chance(0.5):
            process.reconnected()
        if self.broker is not None and self.broker.open and self.chance(0.5):
            self.broker.reconnected(peer)

    def broker_opened(self) -> None:
        for peer, wire in self.wires.items():
            if wire.up:
                waiting, wire.waiting = wire.waiting, []
                for frames in waiting:
                    self.send_up(peer, frames)

    def process(self, peer: bytes) -> Process | None:
        """Return the living process of this id."""
        worker = self.workers.get(peer)
        if worker is not None:
            return worker
        return next((a for a in self.agents if a is not None and a.alive and a.id == peer), None)
