"""The records of a run's log, and the names of the functions that they mention."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from resilient_scoop.core.events import Table
from resilient_scoop.core.facts.tally import title
from resilient_scoop.journal.view import JournalView
from resilient_scoop.wire import messages as wire

_LOG_OF_HISTORY: Final = bytes((Table.LOG,))


def records(view: JournalView) -> Iterator[wire.Logged]:
    """Yield the records of the log, then those kept by --keep-history."""
    for _, raw in view.scan(Table.LOG):
        yield wire.decode_logged(raw)
    for key, raw in view.scan(Table.HISTORY):
        if key.startswith(_LOG_OF_HISTORY):
            yield wire.decode_logged(raw)


def names_of_functions(view: JournalView) -> dict[bytes, str]:
    """Return the names of functions by id and by fingerprint."""
    found = {}
    for _, raw in view.scan(Table.DEFINE):
        record = wire.decode_up(raw)
        if isinstance(record, wire.Define):
            found[record.fn] = found[record.fingerprint] = title(record)
    return found
