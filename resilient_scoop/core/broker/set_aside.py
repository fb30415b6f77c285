"""Items that a worker cannot run, because its process lacks what they need: that is no outcome of theirs.

The worker does not give them back, since the next worker would lack the same. Either the run stops, or
the replay of their parent asks for something else in their place, and they are dropped. The broker does
not journal this, so each new broker is told again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from resilient_scoop.wire import messages as wire

if TYPE_CHECKING:
    from resilient_scoop.core.worker.work import Work
    from resilient_scoop.core.worker.worker import Worker


def set_aside(worker: Worker, work: Work, index: int, reason: str) -> None:
    """Keep the items of a slice from an index on, and say why."""
    work.aside = index, reason
    work.next = work.stop
    worker.out.append(_unfit(work, reason))


def say_again(worker: Worker) -> list[bytes]:
    """Return what a new broker is to be told."""
    return [_unfit(work, work.aside[1]) for work in _set_aside(worker) if work.aside is not None]


def hand_back(worker: Worker) -> None:
    """Give back what was set aside: this worker ends."""
    for work in _set_aside(worker):
        if work.aside is not None:
            worker.give_back_from(work, work.aside[0])


def _set_aside(worker: Worker) -> list[Work]:
    works = worker.works.values()
    return [work for work in works if work.aside is not None and not work.dropped]


def _unfit(work: Work, reason: str) -> bytes:
    task = work.task
    return wire.encode(wire.Unfit(task.parent, task.call, task.fn, reason))
