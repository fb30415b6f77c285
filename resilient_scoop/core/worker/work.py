"""A task as a worker holds it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from resilient_scoop import ids

if TYPE_CHECKING:
    from resilient_scoop.core.facts.intervals import Intervals
    from resilient_scoop.wire import messages as wire


@dataclass(slots=True, eq=False)
class Work:
    """A task as the worker holds it. The shell moves `next`; `stop` is lowered by retractions (W4)."""

    attempt: wire.Attempt
    task: wire.Task
    next: int
    stop: int
    left: Intervals
    depth: int
    first: int = 0  # where `values` begin
    values: list[bytes] = field(default_factory=list)
    failed: list[int] = field(default_factory=list)  # item numbers
    rank: tuple[int, int, int] = (0, 1, 0)  # the lower, the sooner
    since: float = 0.0  # when the first of `values` began, on the shell's clock
    dropped: bool = False
    impure: bool = False  # an item had arguments of which nothing is proven; it stays so (V1)
    again: int = 0  # second tries of items under `retries=` that no outcome has told of
    asked: int = -1  # the `idempotent=False` item that is to begin (`core.worker.permission`)
    permitted: int = -1  # the one that may
    aside: tuple[int, str] | None = None  # from which item on it cannot run here, and why
    define: wire.Define | None = None  # once it is queued; what runs needs it, come what may

    @property
    def callable(self) -> wire.Define:
        """The callable of a task that is, or was, in the queue."""
        assert self.define is not None, "a task is queued when its callable is known"
        return self.define

    def digests(self, start: int, stop: int) -> bytes:
        """Return the digests of items."""
        at, width = self.task.start, ids.DIGEST_BYTES
        return self.task.digests[(start - at) * width : (stop - at) * width]

    def take_again(self) -> int:
        """Return how many second tries no outcome has told of; the next one does."""
        again, self.again = self.again, 0
        return again
