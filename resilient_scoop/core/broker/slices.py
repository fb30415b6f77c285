"""Values of the scheduler: estimates, slices, entries of the queue."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from resilient_scoop.core.broker.leases import Lease, OpenBatch
    from resilient_scoop.core.events import StoredResume
    from resilient_scoop.core.facts.batch import Piece
    from resilient_scoop.wire.messages import Options, Task


@dataclass(slots=True)
class Estimate:
    """Time per item of a function: a moving average."""

    mean_s: float = 0.0
    samples: int = 0

    def add(self, items: int, spent_s: float) -> None:
        """Record the measured time of some items."""
        self.samples += items
        weight = max(items / (items + 20), items / self.samples)
        self.mean_s += weight * (spent_s / items - self.mean_s)


class Slice(NamedTuple):
    """A slice chosen for a worker. `task.args` is empty where `piece.args` must be read back."""

    lease: Lease
    task: Task
    piece: Piece
    options: Options
    resume: StoredResume | None  # where the (single) item's payload must be read from


class Entry(NamedTuple):
    """A batch's place in the queue, in the order of its fields."""

    urgency: int
    leaf: int  # 0 if it represents only the batch's ready parents
    height: int
    place: int  # of the batch: when its first item was ready
    order: int  # never the same
    batch: OpenBatch


def fitting(args: list[bytes], room_bytes: int) -> int:
    """Return how many of the arguments, at least one, fit into a message."""
    total = 0
    for count, arg in enumerate(args):
        total += len(arg)
        if total > room_bytes and count:
            return count
    return len(args)
