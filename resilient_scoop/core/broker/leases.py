"""Volatile records: processes, unfinished batches, and the leases between them.

All of this is learned again after a restart.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from resilient_scoop.core.facts.intervals import Intervals
from resilient_scoop.wire.messages import PROGRAM, Attempt, Unfit

if TYPE_CHECKING:
    from resilient_scoop.core.facts.batch import Batch
    from resilient_scoop.core.facts.parent import ParentFacts
    from resilient_scoop.ids import PeerId


class OpenBatch:
    """An unfinished batch in one epoch of the broker: the places of its undone items."""

    __slots__ = (
        "asked", "call", "facts", "held_back_except", "leases", "parent", "place", "queued", "ready",
        "resumed", "tried", "unfit",
    )  # fmt: skip

    def __init__(self, parent: ParentFacts, facts: Batch) -> None:
        self.parent = parent
        self.call = facts.call
        self.facts = facts
        self.ready = Intervals()  # undone and not leased
        self.resumed: list[int] = []  # a heap of ready items that have a history
        self.queued = False  # has an entry in the queue
        self.place = 0  # its place in the queue among batches of the same kind; 0: it had none yet
        self.held_back_except: set[int] | None = None  # all but these are held back; None: none are
        # Tries under `retries=` in an earlier worker, of items that were moved since.
        self.tried: dict[int, int] | None = None
        self.leases: list[Lease] = []
        self.asked = b""  # function of the parent's last call; empty until a replay repeats it
        self.unfit: Unfit | None = None  # what a worker lacks for it, until the replay makes it


@dataclass(slots=True, eq=False)
class Lease:
    """A slice that a worker holds: the items in `left` belong to it until the lease ends."""

    attempt: Attempt
    batch: OpenBatch
    left: Intervals
    peer: Peer
    fn: bytes
    item_s: float  # estimated time per item when it was granted
    granted_at: float
    parked: set[int] = field(default_factory=set)  # items that wait for others
    limits: dict[int, tuple[float, int]] = field(default_factory=dict)  # see `core.broker.timeouts`
    retracting: bool = False
    urgency: int = 0  # lower is sooner: minus the priority

    def unpark(self, index: int) -> None:
        """Note that a waiting item continues, and occupies the worker again."""
        self.limits.pop(index, None)
        if index in self.parked:
            self.parked.discard(index)
            self.peer.take(self, 1)

    def busy(self) -> int:
        """Return how many of its items occupy the worker."""
        return self.left.count() - len(self.parked)


class GivenRecorder(Protocol):
    """Records the attempts of a process of another host (`core.broker.guests`)."""

    def give(self, lease: Lease) -> None:
        """Record a lease that it holds."""

    def end(self, attempt: Attempt) -> None:
        """Record the end of an attempt."""


@dataclass(slots=True, eq=False)
class Peer:
    """One connected process; its id is its incarnation."""

    id: PeerId
    role: str
    node: str
    name: str
    alive_at: float
    heard_at: float
    leases: dict[Attempt, Lease] = field(default_factory=dict)
    functions: set[bytes] = field(default_factory=set)
    load_s: float = 0.0  # estimated time of the items that it holds and are not parked
    items: int = 0  # number of these items
    moved_at: float = 0.0  # when it last ended an item, made a call, started to wait or got work
    host: str | None = None  # the other host that it is a process of; None: this one
    given: GivenRecorder | None = None  # of a process of another host
    lag_s: float = 0.0  # time of a round trip and a report, if its host is far away
    stuck: bool = False  # executing one item for long, while others of its items could continue

    @property
    def is_program(self) -> bool:
        """Whether it is the program of a session, which outlives its run."""
        return self.role == "origin" and self.node == PROGRAM

    def take(self, lease: Lease, count: int) -> None:
        """Count items as its load."""
        self.load_s += count * lease.item_s
        self.items += count

    def ease(self, lease: Lease, count: int) -> None:
        """Stop counting items as its load."""
        self.items -= count
        self.load_s = max(0.0, self.load_s - count * lease.item_s) if self.items > 0 else 0.0
