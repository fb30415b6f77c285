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
    rank: tuple[int, int, int] = (0, 1, 0)  # lower is sooner
    since: float = 0.0  # start of the first of `values`, in the shell's time
    dropped: bool = False
    impure: bool = False  # an item had arguments without a proof; final (V1)
    again: int = 0  # second tries of items under `retries=` that were not reported yet
    asked: int = -1  # the `idempotent=False` item that asks to start (`core.worker.permission`)
    permitted: int = -1  # the item that may start
    aside: tuple[int, str] | None = None  # from which item on it cannot run here, and why
    differs: bool = False  # this is so because the function is another one now
    define: wire.Define | None = None  # set when it is queued

    @property
    def callable(self) -> wire.Define:
        """The callable of a task that is or was in the queue."""
        assert self.define is not None, "a task is queued when its callable is known"
        return self.define

    def digests(self, start: int, stop: int) -> bytes:
        """Return the digests of items."""
        at = self.task.start
        return ids.digests_of(self.task.digests, start - at, stop - at)

    def take_again(self) -> int:
        """Return the number of unreported second tries, for the next outcome."""
        again, self.again = self.again, 0
        return again
