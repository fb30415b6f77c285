"""Items that a worker cannot run because its process lacks what they need, which is not an outcome.

The worker does not give them back, because the next worker would lack the same. Either the run
stops, or the replay of their parent makes other calls in their place, and they are dropped. The
broker does not journal this, so each new broker is told again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from resilient_scoop.wire import messages as wire

if TYPE_CHECKING:
    from collections.abc import Iterable

    from resilient_scoop.core.worker.work import Work


def set_aside(work: Work, index: int, reason: str, *, differs: bool = False) -> bytes:
    """Keep the items of a slice from an index on; return the message for the broker.

    `differs`: the function is not what it was when the items were called; the script was edited.
    """
    work.aside, work.differs = (index, reason), differs
    work.next = work.stop
    return _unfit(work, reason)


def repeat(works: Iterable[Work]) -> list[bytes]:
    """Return the messages for a new broker."""
    return [
        _unfit(work, work.aside[1]) for work in works if work.aside is not None and not work.dropped
    ]


def held_aside(works: Iterable[Work]) -> list[tuple[Work, int]]:
    """Return the slices with set-aside items, and from which item on."""
    return [(work, work.aside[0]) for work in works if work.aside is not None and not work.dropped]


def _unfit(work: Work, reason: str) -> bytes:
    task = work.task
    return wire.encode(wire.Unfit(task.parent, task.call, task.fn, reason, work.differs))
