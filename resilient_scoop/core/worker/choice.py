"""Decide what the thread of a worker does next, for the real loop and the simulated one.

WC1  Parents that can continue go before slices: the deepest first, and those that wait for a lock after
     all others, because one of them may release it.
WC2  The slice of the lowest rank goes first. Of equal ones an open one (with a waiting item and items
     that have not started) goes before those in the queue, and the latest of the open ones first: most
     likely it was opened below the others.
WC3  While a task waits for a lock, none of the script's own calls is begun. A careful worker begins none
     while any task waits, except calls that the deepest waiting task has made. If the worker has begun
     nothing for `BARRED_S`, it may begin any: another worker may wait for what is barred here.
WC4  After a stop nothing is begun.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import TYPE_CHECKING, Final, Protocol

from resilient_scoop import ids

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Callable, Mapping

    from resilient_scoop.core.worker.work import Work
    from resilient_scoop.core.worker.worker import Worker

BARRED_S: Final = 1.0
"""How long a careful worker does nothing instead of starting items that its deepest waiting task
does not need."""


class WaitingTask(Protocol):
    """A task that waits."""

    @property
    def yields(self) -> bool:
        """Whether it waits for a lock."""


class Next(Enum):
    """What comes next."""

    END = auto()
    RESUME = auto()  # a waiting task that can continue
    BEGIN = auto()  # a slice (`take_slice`)
    WAIT = auto()  # for a message


def next_step(*, stopping: bool, ready: bool, slices: bool) -> Next:
    """Return the next step (WC1, WC4); `ready`: a parent can continue, `slices`: a slice may be started."""
    if stopping:
        return Next.END
    if ready:
        return Next.RESUME
    return Next.BEGIN if slices else Next.WAIT


def turn_of(path: str, *, yields: bool = False) -> tuple[bool, int]:
    """Return the sort key of a task that can continue; the lowest goes first (WC1)."""
    return yields, -path.count(".")


def bar(
    parked: Mapping[str, WaitingTask], *, locks: int, careful: bool, idle_s: float
) -> Callable[[Work], bool] | None:
    """Return a function that says whether a slice may be started (WC3, L2); None if each may.

    `locks` is how many of the `parked` tasks wait for a lock; nothing was started for `idle_s`.
    """
    if not (locks or (careful and parked)):
        return None
    if idle_s > BARRED_S or not careful:
        return lambda work: work.task.parent not in ids.SCRIPTS
    paths = [path for path, waiting in parked.items() if not waiting.yields]
    last = max(paths, key=ids.depth, default=ids.ROOT)
    return lambda work: (
        work.task.parent not in ids.SCRIPTS and f"{work.task.parent}.".startswith(f"{last}.")
    )


def take_slice(
    opened: list[Work], queue: deque[Work], may_begin: Callable[[Work], bool] | None = None
) -> Work | None:
    """Take the slice that goes first (WC2) among those that may be started; None if there is none."""
    if may_begin is not None:
        return _take_allowed(opened, queue, may_begin)
    if not opened:
        return queue.popleft() if queue else None
    at = min(range(len(opened)), key=lambda each: (opened[each].rank, -each))
    if queue and queue[0].rank < opened[at].rank:
        return queue.popleft()
    return opened.pop(at)


def _take_allowed(
    opened: list[Work], queue: deque[Work], may_begin: Callable[[Work], bool]
) -> Work | None:
    for works in (opened, queue):
        for work in list(works):
            if may_begin(work):
                works.remove(work)
                return work
    return None


def give_back_upper(worker: Worker, opened: list[Work]) -> None:
    """Give back the script's own calls that may not be started now, to make room for awaited items."""
    for work in [*opened, *worker.queue]:
        if work.task.parent in ids.SCRIPTS:
            worker.give_back_from(work, work.next)
    opened[:] = [work for work in opened if work.task.parent not in ids.SCRIPTS]
