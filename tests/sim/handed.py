"""Agents of simulated hosts keep the messages of their processes: the files for this, and the checks.

A finished item whose outcome an agent has received is not computed again, even if worker and broker
die. This is checked in worlds where nothing else happens to a host: one that is lost or cut off
loses its work.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from resilient_scoop import ids
from resilient_scoop.core.events import Change, Put, Table
from resilient_scoop.core.relay import RelayConfig
from resilient_scoop.wire import messages as wire
from tests.sim.cancels import Broken

if TYPE_CHECKING:
    from tests.sim.cancels import Key
    from tests.sim.world import World


@dataclass(frozen=True, slots=True)
class Keeping:
    """How much agents keep, and how good their disks are."""

    memory_bytes: int = 64 << 20
    disk_bytes: int = 4 << 30
    full: float = 0.0  # chance that a write fails
    torn: float = 0.0  # chance that a file differs from what was written
    strict: bool = False  # check that nothing that an agent has received is computed again

    @classmethod
    def draw(cls, rng: random.Random) -> Keeping:
        """Draw a seed's disks; most have little memory for messages, so that files are used."""
        memory = rng.choice((0, 0, 300, 64 << 20))
        disk = rng.choice((500, 4 << 30, 4 << 30))
        return cls(memory, disk, rng.choice((0.0, 0.0, 0.2)), rng.choice((0.0, 0.0, 0.2)))

    @property
    def config(self) -> RelayConfig:
        return RelayConfig(self.memory_bytes, self.disk_bytes)


class Shelf:
    """The files of one agent."""

    def __init__(self, keeping: Keeping, rng: random.Random) -> None:
        self.keeping = keeping
        self.rng = rng
        self.files: dict[int, list[bytes] | None] = {}
        self.last = 0

    def write(self, frames: Sequence[bytes]) -> int | None:
        if self.rng.random() < self.keeping.full:
            return None
        self.last += 1
        self.files[self.last] = None if self.rng.random() < self.keeping.torn else list(frames)
        return self.last

    def read(self, number: int) -> list[bytes] | None:
        return self.files[number]

    def remove(self, number: int) -> None:
        del self.files[number]


class Handed:
    """The outcomes that agents of other hosts have received, in a world in which they count."""

    def __init__(self, world: World, *, strict: bool) -> None:
        self.world = world
        self.strict = strict
        self.keys: set[Key] = set()
        self.calls: set[tuple[str, int]] = set()  # durable

    def up(self, frames: Sequence[bytes]) -> None:
        """Record a message of a process that an agent gets."""
        if not self.strict:
            return
        for message in map(wire.decode_up, frames[1:]):
            if isinstance(message, wire.Outcomes):
                for each in message.items:
                    if each.task is not None and (message.parent, each.call) in self.calls:
                        self._add(message.parent, each)

    def _add(self, parent: str, outcome: wire.Outcome) -> None:
        for at in range(len(outcome.values)):
            path = ids.item_path(parent, outcome.call, outcome.start + at)
            digest = ids.digests_of(outcome.digests, at, at + 1)
            self.keys.add((path, outcome.fingerprint + digest))

    def committed(self, changes: Sequence[Change]) -> None:
        for change in changes:
            if self.strict and isinstance(change, Put) and change.table is Table.LOG:
                record = wire.decode_logged(change.value)
                if isinstance(record, wire.Calls):
                    self.calls |= {(record.parent, part.call) for part in record.parts}

    def started(self, key: Key) -> None:
        if key in self.keys:
            raise Broken(f"NO-LOST: {key[0]} was handed to an agent, and is computed again")
