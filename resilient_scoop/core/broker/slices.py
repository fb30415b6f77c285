"""What the scheduler chooses from and hands out."""

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
    """Time per item of a function: a mean that forgets."""

    mean_s: float = 0.0
    samples: int = 0

    def add(self, items: int, spent_s: float) -> None:
        """Take in the measured time of some items."""
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
    leaf: int  # 0 where it stands for the batch's ready parents only
    height: int
    order: int  # never the same
    batch: OpenBatch


def fitting(args: list[bytes], room_bytes: int) -> int:
    """Return how many of the arguments, one at least, fit into a message."""
    total = 0
    for count, arg in enumerate(args):
        total += len(arg)
        if total > room_bytes and count:
            return count
    return len(args)
