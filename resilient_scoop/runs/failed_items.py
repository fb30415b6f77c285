"""The failed calls of a run, with their arguments and tracebacks, from its journal.

No user code is imported or run: exceptions are shown as their worker stored them, and arguments
with stubs in place of the user's classes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec

from resilient_scoop import ids
from resilient_scoop.core.events import Table
from resilient_scoop.core.facts.tally import OTHERS, title
from resilient_scoop.core.facts.visitor import LogVisitor
from resilient_scoop.payload import preview
from resilient_scoop.payload.exceptions import Failure, describe_failure
from resilient_scoop.wire import messages as wire
from resilient_scoop.wire.payload_tags import BROKER_ERROR
from resilient_scoop.wire.tally import TALLY_KEY, Tally, decode_tally

if TYPE_CHECKING:
    from collections.abc import Iterator

    from resilient_scoop.core.ports import Readable

_Batch = tuple[str, int]
"""A parent's path, and the number of its call."""

_Place = tuple[str, int, int]


class FailedItem(msgspec.Struct, frozen=True, kw_only=True):
    """One call that failed."""

    path: str
    function: str
    call: str  # with its arguments, as text
    type: str
    message: str
    where: str
    attempts: int
    traceback: str


@dataclass(slots=True)
class _Found:
    """A failed item, as found in the log."""

    payload: bytes
    fingerprint: bytes
    deaths: int = 0
    key: bytes = b""  # of the `Calls` record
    offset: int = 0
    fn: bytes = b""


@dataclass(slots=True)
class _Scan(LogVisitor):
    """The failed items of each batch, and how often a process died while it executed an item."""

    failed: dict[_Batch, dict[int, _Found]] = field(default_factory=dict)
    deaths: dict[_Batch, dict[int, int]] = field(default_factory=dict)

    def ended(self, parent: str, outcome: wire.Outcome) -> None:
        batch = parent, outcome.call
        for at in outcome.failed:
            index = outcome.start + at
            found = _Found(outcome.values[at], outcome.fingerprint)
            found.deaths = self.deaths.get(batch, {}).pop(index, 0)
            self.failed.setdefault(batch, {})[index] = found

    def died(self, record: wire.Crashed) -> None:
        deaths = self.deaths.setdefault((record.parent, record.call), {})
        deaths[record.index] = deaths.get(record.index, 0) + 1

    def cut_off(self, parent: str, call: int, stop: int) -> None:
        self.renewed(parent, call, stop, 1 << 62)
        deaths = self.deaths.get((parent, call), {})
        for index in [index for index in deaths if index >= stop]:
            del deaths[index]

    def renewed(self, parent: str, call: int, start: int, stop: int) -> None:
        failed = self.failed.get((parent, call), {})
        for index in [index for index in failed if start <= index < stop]:
            del failed[index]

    def places(self) -> dict[_Place, _Found]:
        """Return the failed items by their places."""
        return {
            (*batch, index): found
            for batch, items in self.failed.items()
            for index, found in items.items()
        }


class _Arguments(LogVisitor):
    """Records where the arguments of some items are: the last call counts."""

    def __init__(self, chosen: dict[_Place, _Found]) -> None:
        self.chosen = chosen
        self.key = b""  # of the record
        self._places: dict[tuple[str, int], list[_Place]] = {}
        for place in chosen:
            self._places.setdefault(place[:2], []).append(place)

    def asked(self, parent: str, part: wire.Part, offset: int) -> None:
        for place in self._places.get((parent, part.call), ()):
            if part.start <= place[2] < part.start + part.count:
                found = self.chosen[place]
                found.key, found.fn = self.key, part.fn
                found.offset = offset + place[2] - part.start


def failed_items(view: Readable, limit: int | None = None) -> tuple[list[FailedItem], int]:
    """Return the failed items of a run in the order of their paths, and how many there are."""
    scan = _Scan()
    for _, raw in _log(view):
        scan.visit(wire.decode_logged(raw))
    failed = scan.places()
    places = sorted(failed, key=_order)
    chosen = {place: failed[place] for place in places[:limit]}
    arguments = _Arguments(chosen)
    for arguments.key, raw in _log(view) if chosen else ():
        arguments.visit(wire.decode_logged(raw))
    defines = {d.fn: d for d in _defines(view)}
    by_fingerprint = {define.fingerprint: define for define in defines.values()}
    items = []
    for place, found in chosen.items():
        define = defines.get(found.fn) or by_fingerprint.get(found.fingerprint)
        items.append(_item(view, place, found, define))
    return items, len(places)


def dropped_failures(view: Readable) -> dict[str, int]:
    """Return how many failed calls the journal no longer has, by function: their task has ended."""
    raw = view.get(Table.META, TALLY_KEY)
    tally = Tally() if raw is None else decode_tally(raw)
    return {name: work.failed for name, work in sorted(tally.functions.items()) if work.failed}


def _log(view: Readable) -> Iterator[tuple[bytes, bytes]]:
    """Yield the records of the log, and those that --keep-history has kept."""
    yield from view.scan(Table.LOG)
    for key, raw in view.scan(Table.HISTORY):
        if key[:1] == bytes((Table.LOG,)):
            yield key[1:], raw


def _order(place: _Place) -> tuple[int, list[int], int, int]:
    numbers = ids.numbers(place[0])
    return len(numbers), numbers, place[1], place[2]


def _defines(view: Readable) -> Iterator[wire.Define]:
    for _, raw in view.scan(Table.DEFINE):
        record = wire.decode_up(raw)
        if isinstance(record, wire.Define):
            yield record


def _item(view: Readable, place: _Place, found: _Found, define: wire.Define | None) -> FailedItem:
    try:
        failure = describe_failure(found.payload)
    except msgspec.MsgspecError:
        failure = Failure("?", "its record cannot be read", "", "")
    name = OTHERS if define is None else title(define)
    tries = 0 if define is None or define.options.retry is not None else define.options.retries
    return FailedItem(
        path=ids.item_path(*place),
        function=name,
        call=_call(view, found, name, 0 if define is None else define.style),
        type=failure.type_name,
        message=failure.text,
        where=failure.where,
        attempts=max(1, found.deaths, 0 if found.payload[:1] == BROKER_ERROR else tries + 1),
        traceback=failure.traceback_text,
    )


def _call(view: Readable, found: _Found, name: str, style: int) -> str:
    """Return the call as source text."""
    raw = view.get(Table.ARGS, found.key) if found.key else None
    if raw is None and found.key:
        raw = view.get(Table.HISTORY, bytes((Table.ARGS,)) + found.key)
    args = None if raw is None else wire.decode_up(raw)
    if not isinstance(args, wire.Args) or found.offset >= len(args.args):
        return f"{name}(<arguments not kept>)"
    value = preview.peek(args.args[found.offset])
    if style == 0 or isinstance(value, preview.Unshown):
        return f"{name}({preview.cut(repr(value))})"
    positional, named = value if style == 2 else (value, {})  # noqa: PLR2004 - as `Define.style`
    texts = [*map(repr, positional), *(f"{key}={each!r}" for key, each in named.items())]
    return f"{name}({preview.cut(', '.join(texts))})"
