"""AT-MOST-ONCE at a worker: it asks before it starts an `idempotent=False` item.

`core.broker.permission` explains question and answer, and what follows if a worker is lost; this
part upholds its A1. The question is sent when the item would start at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from resilient_scoop.wire import messages as wire

if TYPE_CHECKING:
    from collections.abc import Iterable

    from resilient_scoop.core.worker.work import Work


def ask(work: Work, index: int) -> bytes:
    """Return the question whether an item may start; `Work.permitted` becomes its number."""
    work.asked = index
    return wire.encode(wire.BeginWanted(work.attempt, index))


def ask_again(works: Iterable[Work]) -> list[bytes]:
    """Return the question for a new broker: the answer may have been lost with the old one."""
    open_ = [work for work in works if work.asked not in (-1, work.permitted)]
    return [wire.encode(wire.BeginWanted(work.attempt, work.asked)) for work in open_]
