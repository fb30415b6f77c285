"""The state in a run's journal, as a broker would load it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from resilient_scoop.core.events import Table
from resilient_scoop.core.facts.recovery import recover
from resilient_scoop.wire.messages import Define, decode_logged, decode_up
from resilient_scoop.wire.tally import TALLY_KEY, Tally, decode_tally

if TYPE_CHECKING:
    from resilient_scoop.core.facts.state import DurableState
    from resilient_scoop.core.ports import Readable


def read_defines(view: Readable) -> dict[bytes, Define]:
    """Return the callables of a journal."""
    records = (decode_up(raw) for _, raw in view.scan(Table.DEFINE))
    return {record.fn: record for record in records if isinstance(record, Define)}


def read_state(view: Readable, run: bytes) -> DurableState:
    """Return the state, as a broker would load it."""
    log = ((key, decode_logged(raw)) for key, raw in view.scan(Table.LOG))
    return recover(run, read_defines(view).values(), log, 0, tally=read_tally(view))


def read_tally(view: Readable) -> Tally | None:
    """Return the counts of erased records; None in a journal of an earlier version."""
    raw = view.get(Table.META, TALLY_KEY)
    return None if raw is None else decode_tally(raw)
