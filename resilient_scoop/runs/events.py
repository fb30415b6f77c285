"""The records of a run's log as events, one for each item or other fact."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, assert_never

import msgspec

from resilient_scoop import ids
from resilient_scoop.core.facts.tally import OTHERS
from resilient_scoop.wire import messages as wire
from resilient_scoop.wire.checkpoints import Checkpoint, Trimmed

EventKind = Literal[
    "called", "done", "failed", "observed", "died", "began", "gave up", "checkpoint", "trimmed"
]


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """One record of a run's log.

    Records of one task are in order; records of different tasks are not in the order of time.
    """

    kind: EventKind
    path: str
    """Path of the item, or of the task that made a call, got an answer or wrote a checkpoint."""
    text: str
    """Details, for display: a function's name, an error, a signal."""
    at: float | None = None
    """Seconds since 1970, if recorded: for deaths."""


def events_of(  # noqa: C901, PLR0912 - a table
    record: wire.Logged, names: dict[bytes, str]
) -> Iterator[Event]:
    """Yield the events of a record."""
    parent = record.parent
    match record:
        case wire.Calls(parts=parts):
            for part in parts:
                for index in range(part.start, part.start + part.count):
                    path = ids.item_path(parent, part.call, index)
                    yield Event(kind="called", path=path, text=names.get(part.fn, OTHERS))
        case wire.Outcomes(items=items):
            for item in items:
                yield from _ends(parent, item, names)
        case wire.Observed(observations=observations):
            for each in observations:
                yield Event(kind="observed", path=parent, text=each.kind)
        case wire.Crashed(call=call, index=index, exit=code, reason=reason, at=at):
            text = f"signal {-code}" if code < 0 else f"exit status {code}"
            path = ids.item_path(parent, call, index)
            yield Event(kind="died", path=path, text=f"{reason}: {text}", at=at or None)
        case wire.Intent(call=call, start=start, count=count, void=void):
            for index in range(start, start + count):
                text = "given back before it began" if void else "never to be started twice"
                yield Event(kind="began", path=ids.item_path(parent, call, index), text=text)
        case wire.Abandoned(call=call, spans=spans):
            for start, stop in spans:
                for index in range(start, stop):
                    yield Event(kind="gave up", path=ids.item_path(parent, call, index), text="")
        case Checkpoint(name=name, gen=gen):
            yield Event(kind="checkpoint", path=parent, text=f"{name}, generation {gen}")
        case Trimmed(items=items_gone):
            text = f"{items_gone} items, covered by a checkpoint"
            yield Event(kind="trimmed", path=parent, text=text)
        case _:
            assert_never(record)


def _ends(parent: str, item: wire.Outcome, names: dict[bytes, str]) -> Iterator[Event]:
    for at in range(len(item.values)):
        path = ids.item_path(parent, item.call, item.start + at)
        kind: EventKind = "failed" if at in item.failed else "done"
        yield Event(kind=kind, path=path, text=names.get(item.fingerprint, OTHERS))
