"""CANCELLED: an item that was cancelled in time never begins; a late cancellation had a begun item.

The answer is sent after the record of the cancellation, so the record is checked. A worker that
held the item before that turn must not begin it later: a successful cancellation means that the
worker gave the item back. A worker that lost its lease in another way (it was silent for too long)
may not know this yet.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from resilient_scoop import ids
from resilient_scoop.core.broker.host_life import HostState
from resilient_scoop.core.events import Change, Put, Table
from resilient_scoop.wire import messages as wire
from resilient_scoop.wire.broker_errors import is_cancelled

if TYPE_CHECKING:
    from resilient_scoop.core.worker.worker import Work
    from tests.sim.shells import BrokerShell
    from tests.sim.worker import WorkerShell
    from tests.sim.world import World

Key = tuple[str, bytes]
"""An item as it was asked for: its path, and the digests of its function and its arguments."""


class Broken(AssertionError):
    """A guarantee does not hold."""


class _Held(NamedTuple):
    attempt: wire.Attempt
    parent: str
    call: int
    spans: list[tuple[int, int]]
    peer: bytes = b""

    def has(self, parent: str, call: int, index: int) -> bool:
        return (self.parent, self.call) == (parent, call) and any(
            low <= index < high for low, high in self.spans
        )


class Cancels:
    """Records which workers held the cancelled items."""

    def __init__(self, world: World, durable: dict[Key, bytes], starts: Counter[Key]) -> None:
        self.world = world
        self.durable = durable
        self.starts = starts
        self.held: list[_Held] = []  # at the end of the last turn
        self.barred: dict[Key, set[wire.Attempt]] = {}
        self.watching = any(
            step[0] in ("cancel", "cancels") or step[1:2] == ("quitter",) for step in world.steps
        )

    def turned(self, shell: BrokerShell, changes: list[Change]) -> None:
        """Check what a broker has cancelled in its turn."""
        if not self.watching:
            return
        for change in changes:
            if isinstance(change, Put) and change.table is Table.LOG:
                record = wire.decode_logged(change.value)
                if isinstance(record, wire.Outcomes) and is_cancelled(record.items[0].values[0]):
                    self._cancelled(shell, record.parent, record.items[0])
        self.held = [
            _Held(
                attempt, lease.batch.parent.path, lease.batch.call, list(lease.left), lease.peer.id
            )
            for attempt, lease in shell.broker.scheduler.leases.items()
        ]

    def _cancelled(self, shell: BrokerShell, parent: str, outcome: wire.Outcome) -> None:
        path = ids.item_path(parent, outcome.call, outcome.start)
        # A worker that was declared lost in this turn has no lease any more, like those lost
        # earlier.
        silent = shell.broker.membership.silent
        held = [
            each for each in self.held if each.peer not in silent and not self._is_cut(shell, each)
        ]
        if (
            shell.broker.membership._awaited is not None
        ):  # workers that may still arrive and keep their items
            held += [
                _Held(attempt, work.task.parent, work.task.call, list(work.left))
                for worker in self.world.workers.values()
                for attempt, work in worker.machine.works.items()
            ]
        here = (parent, outcome.call, outcome.start)
        barred = {each.attempt for each in held if each.has(*here)}
        self.barred[path, outcome.fingerprint + outcome.digests] = barred

    def _is_cut(self, shell: BrokerShell, held: _Held) -> bool:
        """Return whether a process was cut off: it may begin its items, but their results do not count."""
        grid, hosts = self.world.grid, shell.broker.hosts
        name = None if grid is None else grid.host_of(held.peer)
        host = None if name is None else hosts.by_name.get(name)
        is_revoked = host is not None and host.state is HostState.REVOKED
        return is_revoked or held.peer in hosts.guests.dropped

    def started(self, key: Key, work: Work) -> None:
        """Check an item that begins."""
        if work.attempt in self.barred.get(key, ()):
            raise Broken(f"CANCELLED: {key[0]} is begun after it was cancelled")

    def too_late(self, key: Key) -> None:
        """Check a cancellation that was answered as too late."""
        if self.starts[key] or key in self.durable or self.world.edited:
            return
        if not any(self._counted(worker, key[0]) for worker in self.world.workers.values()):
            raise Broken(f"CANCELLED: {key[0]} was not begun, and could not be cancelled")

    def _counted(self, worker: WorkerShell, path: str) -> bool:
        """Return whether a worker is about to begin an item."""
        place = ids.parse_item(path)
        return place is not None and any(
            place[:2] == (work.task.parent, work.task.call) and place[2] < work.next
            for work in worker.machine.works.values()
        )
