"""AT-MOST-ONCE in the simulated world: what has begun, what was only queued."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from resilient_scoop import ids
from tests.sim.cancels import Broken, Key

if TYPE_CHECKING:
    from resilient_scoop.wire import messages as wire
    from tests.sim.world import World


class Permissions:
    """Knows which items of `idempotent=False` calls may have begun."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.durable: set[tuple[str, bytes]] = set()  # (item, digest): on record as begun
        self.wanted: Counter[Key] = Counter()  # a worker came to them

    def asked(self, key: Key) -> None:
        """A worker with an idle CPU has come to an item."""
        self.wanted[key] += 1

    def started(self, key: Key, times: int) -> None:
        """An item is put on a CPU."""
        path, mark = key
        if times > 1:
            raise Broken(f"AT-MOST-ONCE: {path} was started {times} times")
        if (path, mark[16:]) not in self.durable:
            raise Broken(f"AT-MOST-ONCE: {path} was started, and no durable record says so")

    def committed(self, record: wire.Intent) -> None:
        """A record of a beginning is durable, or one of a beginning that was none."""
        width = ids.DIGEST_BYTES
        for at in range(record.count):
            path = ids.item_path(record.parent, record.call, record.start + at)
            mark = (path, record.digests[at * width : (at + 1) * width])
            (self.durable.discard if record.void else self.durable.add)(mark)

    def lost(self, key: Key) -> None:
        """A parent is told that an item may have begun and is lost."""
        if not self.wanted[key]:
            raise Broken(f"AT-MOST-ONCE: {key[0]} was only queued, and is said to be lost")
