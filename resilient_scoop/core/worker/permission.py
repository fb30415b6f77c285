"""AT-MOST-ONCE at a worker: it asks before it begins an `idempotent=False` item.

What is asked and answered, and what follows when a worker is lost: `core.broker.permission`, whose A1
this part upholds. An item is asked for when it would begin at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from resilient_scoop.wire import messages as wire

if TYPE_CHECKING:
    from collections.abc import Iterable

    from resilient_scoop.core.worker.work import Work


def ask(work: Work, index: int) -> bytes:
    """Return the question whether an item may begin; `Work.permitted` becomes its number."""
    work.asked = index
    return wire.encode(wire.BeginWanted(work.attempt, index))


def ask_again(works: Iterable[Work]) -> list[bytes]:
    """Return what a new broker is to be asked: the answer may have ended with the old one."""
    open_ = [work for work in works if work.asked not in (-1, work.permitted)]
    return [wire.encode(wire.BeginWanted(work.attempt, work.asked)) for work in open_]
