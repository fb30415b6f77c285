"""AT-MOST-ONCE in the simulated world: which items have begun, and which were only queued."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from resilient_scoop import ids
from tests.sim.cancels import Broken, Key

if TYPE_CHECKING:
    from resilient_scoop.wire import messages as wire
    from tests.sim.world import World


class Permissions:
    """Records which items of `idempotent=False` calls may have begun."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.durable: set[tuple[str, bytes]] = set()  # (item, digest): recorded as begun
        self.wanted: Counter[Key] = Counter()  # a worker reached them

    def asked(self, key: Key) -> None:
        """Note that a worker with an idle CPU has reached an item."""
        self.wanted[key] += 1

    def started(self, key: Key, times: int) -> None:
        """Check an item that begins on a CPU."""
        path, mark = key
        if times > 1:
            raise Broken(f"AT-MOST-ONCE: {path} was started {times} times")
        if (path, mark[16:]) not in self.durable:
            raise Broken(f"AT-MOST-ONCE: {path} was started, and no durable record says so")

    def committed(self, record: wire.Intent) -> None:
        """Note durable records of begun items, and of items that did not begin after all."""
        width = ids.DIGEST_BYTES
        for at in range(record.count):
            path = ids.item_path(record.parent, record.call, record.start + at)
            mark = (path, record.digests[at * width : (at + 1) * width])
            (self.durable.discard if record.void else self.durable.add)(mark)

    def lost(self, key: Key) -> None:
        """Check a report to a parent that an item may have begun and is lost."""
        if not self.wanted[key]:
            raise Broken(f"AT-MOST-ONCE: {key[0]} was only queued, and is said to be lost")
