"""Time limits of calls that wait for their own calls.

While an item is executing, its agent watches the time, from the flight record. While it waits, the
broker does: its worker may execute other code for long. `Lease.limits` has the exact values; the
queue holds one entry per item, which may be early, never late.

  T1  An item that waits, and whose time is over, ends or is tried again at the next tick.
  T2  Time that is not the call's own (between two tries of `retries=`) is not limited.
"""

from __future__ import annotations

import heapq
from math import inf
from typing import TYPE_CHECKING

from resilient_scoop.wire.attempt import Attempt

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from resilient_scoop.core.broker.leases import Lease, Peer
    from resilient_scoop.core.broker.scheduler import Scheduler
    from resilient_scoop.wire.messages import Crashed, ProcessLost


class Limits:
    """The limits of the items that wait."""

    def __init__(self, leases: Mapping[Attempt, Lease]) -> None:
        self._leases = leases
        self._queue: list[tuple[float, int, int, int]] = []  # until, epoch, number, index
        self._queued: set[tuple[int, int, int]] = set()

    def put(self, lease: Lease, index: int, until: float, tries: int) -> None:
        """Add a waiting item; its try, after others in its worker, may take until `until`."""
        lease.limits[index] = (until, tries)
        if until < inf:
            self._push(until, (lease.attempt.epoch, lease.attempt.no, index))

    def _push(self, until: float, key: tuple[int, int, int]) -> None:
        if key not in self._queued:
            self._queued.add(key)
            heapq.heappush(self._queue, (until, *key))

    def next(self) -> float:
        """Return the time of the next check."""
        return self._queue[0][0] if self._queue else inf

    def due(self, now: float) -> list[tuple[Lease, int, int]]:
        """Remove the items whose time is over: (lease, index, tries)."""
        found = []
        while self._queue and self._queue[0][0] <= now:
            _, epoch, no, index = heapq.heappop(self._queue)
            self._queued.discard((epoch, no, index))
            lease = self._leases.get(Attempt(epoch, no))
            if lease is None or index not in lease.parked or index not in lease.limits:
                continue  # it continues, or is done
            until, tries = lease.limits[index]
            if until > now:
                self.put(lease, index, until, tries)
                continue
            found.append((lease, index, tries))
        return found


def carry_tries(lease: Lease, lost: ProcessLost | None) -> None:
    """Keep the number of tries of a lost worker's items under `retries=`."""
    tries = {index: count for index, (_, count) in lease.limits.items() if count}
    if lost is not None and lost.reason == "asked" and lost.on_cpu == lease.attempt and lost.tries:
        tries[lost.index] = lost.tries
    if tries:
        tried = lease.batch.tried = lease.batch.tried or {}
        for index, count in tries.items():
            tried[index] = tried.get(index, 0) + count


def tries_of(deaths: Iterable[Crashed], before: Mapping[int, int] | None, index: int) -> int:
    """Return how many tries of an item have failed, in any worker."""
    known = 0 if before is None else before.get(index, 0)
    return known + sum(each.tries + (each.reason == "timeout") for each in deaths)


def held_below(scheduler: Scheduler, path: str) -> list[tuple[Attempt, Peer]]:
    """Return the leases of items below a parent."""
    below, found = [path], []
    while below:
        each = below.pop()
        below += scheduler.state.kids.get(each, ())
        parent = scheduler.state.parents.get(each)
        for facts in () if parent is None else parent.batches.values():
            batch = scheduler.batches.get(facts)
            leases = () if batch is None else batch.leases
            found += [(lease.attempt, lease.peer) for lease in leases]
    return found
