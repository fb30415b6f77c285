"""The processes of the simulated world: thin shells around the real machines.

They do in virtual time what a shell does in a real process (receive, take turns, commit, run
items). At each interesting point, a shell may die (`World.point`).
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING

from resilient_scoop.config import BrokerConfig
from resilient_scoop.core.broker.broker import Broker
from resilient_scoop.core.broker.exchange import Exchange, Mail
from resilient_scoop.core.broker.handover import Stage
from resilient_scoop.core.events import AskCheckpoints, Change, Interrupt, Put, Table
from resilient_scoop.core.facts.recovery import recover
from resilient_scoop.core.facts.state import DurableState
from resilient_scoop.errors import JournalFullError
from resilient_scoop.ids import PeerId
from resilient_scoop.wire import messages as wire
from resilient_scoop.wire.tally import TALLY_KEY, decode_tally
from tests.fakes import Failure, MemoryJournal
from tests.sim import programs
from tests.sim.checkers import RUN
from tests.sim.compactions import Compactor, FileJournal
from tests.sim.world import World

if TYPE_CHECKING:
    from tests.sim.launcher import Launcher

RUN8 = RUN[:8]
_HOLD_S = 0.05
_FAREWELL_S = 8.0


class Process:
    """A process that lives, sleeps and dies."""

    def __init__(self, world: World, name: str, peer: PeerId) -> None:
        self.world = world
        self.name = name
        self.id = peer
        self.alive = True
        self.paused_until = 0.0

    def die(self) -> None:
        self.alive = False

    def pause(self, seconds: float) -> None:
        self.paused_until = max(self.paused_until, self.world.now + seconds)

    def hear(self, peer: bytes, frames: Sequence[bytes]) -> None:
        """Receive a message."""

    def reconnected(self) -> None:
        """Handle a connection that is established again."""


def load(journal: MemoryJournal) -> tuple[DurableState, dict[str, bytes]]:
    """Return the state of a new broker."""
    defines = [
        define
        for _, raw in journal.scan(Table.DEFINE)
        if isinstance(define := wire.decode_up(raw), wire.Define)
    ]
    log = ((key, wire.decode_logged(raw)) for key, raw in journal.scan(Table.LOG))
    consts = {key.decode(): raw for key, raw in journal.scan(Table.CONST)}
    progress = [
        (key, message)
        for key, raw in journal.scan(Table.PROGRESS)
        if isinstance(message := wire.decode_up(raw), wire.Progress)
    ]
    raw = journal.get(Table.META, TALLY_KEY)
    tally = None if raw is None else decode_tally(raw)
    return recover(RUN, defines, log, len(shown(journal)), progress, tally), consts


def shown(journal: MemoryJournal) -> bytes:
    """Return the recorded output of the script."""
    text = bytearray()
    for key, raw in journal.scan(Table.OUTPUT):
        output = wire.decode_up(raw)
        assert isinstance(output, wire.Output)
        assert int.from_bytes(key, "big") == len(text), "a gap or an overlap in the output"
        text += output.data
    return bytes(text)


class BrokerShell(Process):
    """One life of the broker: turns, and a writer whose commits take time."""

    def __init__(self, world: World, launcher: Launcher, *, adopt: bool) -> None:
        super().__init__(world, "broker", PeerId(b""))
        self.launcher = launcher
        self.journal = world.journal
        self.open = False
        self.decided = False  # requests to hand the run over
        small = world.climate.small
        self.config = BrokerConfig(
            adopt=adopt, lease_s=world.climate.lease_s, page_bytes=150 if small else 1 << 20,
            sweep_bytes=100 if small else 1 << 18,
            args_bytes_max=0 if small else 1 << 20, grant_bytes_max=8 if small else 1 << 20,
            # In every second seed, only callables in use are kept: each is read back when it is
            # named, and dropped soon.
            callables_max=1000 * (1 - world.seed % 2),
            heartbeat_timeout_s=world.climate.lease_s,
        )  # fmt: skip
        self.woke_at = self.turned_at = self.opened_at = world.now
        self.stalls: list[
            tuple[float, float]
        ] = []  # when it continued, and for how long it was paused
        self.queue: deque[tuple[int, list[Change]]] = deque()
        self.committing = False
        self.committed = 0
        self.put_turn = 0
        self.full = False
        self.turn_due = False
        self.armed_at = math.inf
        self.farewell_at: float | None = None
        self.compactor: Compactor | None = None
        world.at(world.rng.random() * 0.05, self, self._begin)

    def _begin(self) -> None:
        raw = self.journal.get(Table.META, b"epoch")
        self.epoch = (0 if raw is None else int.from_bytes(raw, "big")) + 1
        self.journal.commit([Put(Table.META, b"epoch", self.epoch.to_bytes(4, "big"))])
        self.world.point("boot", self)
        self.world.at(0.01, self, self._recover)

    def _recover(self) -> None:
        world = self.world
        state, consts = load(self.journal)
        self.broker = Broker(
            self.config, state, epoch=self.epoch, seed=programs.RUN_SEED, consts=consts
        )
        defines = self.broker.callable_cache(self.journal)
        self.exchange = Exchange(self.broker, RUN8, self._refused, defines)
        self.broker.check()
        world.point("recovered", self)
        self.open = True
        if isinstance(self.journal, FileJournal) and world.climate.compaction is not None:
            self.compactor = Compactor(self, self.journal, world.climate.compaction)
        world.checks.opened(self)
        if world.grid is not None:
            self.woke_at = self.turned_at = self.opened_at = world.now
            world.grid.opened(self, adopt=self.config.adopt)
        world.broker_opened()
        self.launcher.opened(self)
        self._turn()

    def _refused(self, text: str) -> None:
        if self.world.grid is None:
            raise AssertionError(text)
        self.world.grid.note(text)

    def die(self) -> None:
        super().die()
        self.world.journal = self.journal.crash()
        self.launcher.lost_broker()

    def receive(self, peer: bytes, frames: Sequence[bytes], host: str | None = None) -> None:
        grid = self.world.grid
        if grid is not None and host is None:
            host = grid.host_of(peer)
            if peer not in self.exchange.hosts.guests.dropped:
                grid.arrives(peer)
        self.exchange.receive(PeerId(peer), list(frames), self.world.now, host)
        self._soon()

    def _soon(self) -> None:
        if not self.turn_due:
            self.turn_due = True
            self.world.at(self.world.rng.random() * 0.001, self, self._turn)

    def interrupt(self) -> None:
        self.exchange.add(Interrupt("asked"))
        self._soon()

    def ask(self, wanted: AskCheckpoints) -> None:
        self.exchange.add(wanted)
        self._soon()

    def reconnected(self, peer: bytes = b"") -> None:
        self._send(self.exchange.reconnected(PeerId(peer)))

    def _turn(self) -> None:
        world, now = self.world, self.world.now
        self.turn_due = False
        self.broker.busy_disk = self.full
        if now - self.turned_at > 1.2:
            self.woke_at = now
        if now - self.turned_at > 2.0:
            self.stalls.append((now, now - self.turned_at))
        self.turned_at = now
        number, changes, mails = self.exchange.turn(now)
        self.broker.check()
        if world.grid is not None:
            world.grid.turned(self)
        world.checks.turned(self, changes)
        world.missing_functions.turned(self.broker, self.launcher)
        world.hosts.turned(self.broker, self.launcher)
        if self.broker.handover.stage is Stage.OVER and not self.broker.handover.awaited.hands_over:
            self.launcher.asking = None
        if self.broker.membership.stopping == "handed over" and not self.decided:
            self.decided = True
            world.checks.saves.decided(self.broker.handover)
        self._send(mails)
        world.point("turn", self)
        if changes:
            self.put_turn = number
            self._put(number, changes)
        self._deliver(number)
        self._send(self.exchange.beats(now))
        if not self._is_over():
            self._arm()

    def _deliver(self, number: int) -> None:
        durable = number if self.committed >= self.put_turn else self.committed
        self._send(self.exchange.committed(durable, self.journal))

    def _send(self, mails: list[Mail]) -> None:
        for to, frames in mails:
            self.world.send_down(to, frames)

    def _arm(self) -> None:
        due = self.broker.deadline(self.world.now)
        if due < self.armed_at - 1e-9:
            self.armed_at = due
            self.world.at(due - self.world.now, self, self._wake)

    def _wake(self) -> None:
        if self.world.now >= self.armed_at - 1e-9:
            self.armed_at = math.inf
            self._turn()

    def _is_over(self) -> bool:
        if self.broker.membership.stopping is None:
            return False
        if self.farewell_at is None:
            self.farewell_at = self.world.now + _FAREWELL_S
        if not self.broker.is_deserted and self.world.now < self.farewell_at:
            return False
        if self.queue:
            return False
        if self.broker.membership.stopping == "handed over":
            self.world.checks.saves.handed_over()
        self.launcher.stopped()
        return True

    def _put(self, number: int, changes: list[Change]) -> None:
        self.queue.append((number, changes))
        if any(isinstance(change, Put) and change.forced for change in changes):
            self._commit_soon()
        elif not self.committing and len(self.queue) == 1:
            self.world.at(_HOLD_S, self, self._commit_soon)

    def _commit_soon(self) -> None:
        if self.queue and not self.committing:
            self.committing = True
            delay_s = self.world.climate.commit_s * (0.5 + self.world.rng.random())
            if self.world.now < self.world.slow_until:
                delay_s += 0.5
            self.world.at(delay_s, self, self._commit, len(self.queue))

    def _commit(self, turns: int) -> None:
        if self.compactor is not None and self.compactor.swapping:  # by the same thread
            self.world.at(0.001, self, self._commit, turns)
            return
        group = [self.queue[at] for at in range(turns)]
        changes = [change for _, each in group for change in each]
        if self.world.now < self.world.full_until:
            self.journal.fail_next(Failure.NO_SPACE)
        try:
            self.journal.commit(changes)
        except JournalFullError:
            self.full = True
            self.world.at(0.5, self, self._commit, turns)
            return
        self.full = self.committing = False
        for _ in group:
            self.queue.popleft()
        self.committed = group[-1][0]
        self.world.checks.committed(self, changes)
        if self.world.grid is not None:
            self.world.grid.committed(changes)
        self.world.point("commit", self)
        self._deliver(self.committed)
        self._commit_soon()
        self._soon()
