"""The part of a broker's state that is in its journal: all fields except those listed here.

Each listed field has its reason.
"""

from __future__ import annotations

from typing import Any

import msgspec

from resilient_scoop.core.facts.batch import Batch, Piece
from resilient_scoop.core.facts.intervals import Intervals
from resilient_scoop.core.facts.parent import ParentFacts
from resilient_scoop.core.facts.sizes import Sizes
from resilient_scoop.core.facts.state import DurableState

_ROUND = 6
_NOT_OF_STATE = {
    "seq": "above every number in the log; a live broker has given numbers to records that are erased",
    "parents": "compared below",
    "kids": "they follow from `parents`",
    "kid_items": "they follow from `parents`",
    "defines": "a cache of DEFINE",
    "inputs": "no script of the simulator reads standard input",
    "tally": "compared by what it says",
    "args_bytes": "of copies in memory",
    "words": "compared by what they say",
}
_NOT_OF_PARENT = {
    "index": "an aid to find records; it may lead to a record further in front",
}
_NOT_OF_PIECE = {
    "args": "a copy in memory",
}


def durable_part(state: DurableState) -> dict[str, Any]:
    """Return the durable part of a state in a form that can be compared."""
    names = set(DurableState.__struct_fields__).difference(_NOT_OF_STATE)
    return {
        **{name: getattr(state, name) for name in names},
        "words": state.progress.batches,
        "tally": _plain(msgspec.to_builtins(state.tally.counts)),
        "parents": {
            path: _parent_part(parent)
            for path, parent in sorted(state.parents.items())
            if not _is_blank(parent)
        },
    }


def _is_blank(parent: ParentFacts) -> bool:
    """Return whether the log has nothing about a parent: its record was made by a lookup."""
    return _parent_part(parent) == _parent_part(ParentFacts(parent.path, parent.prefix))


def _parent_part(parent: ParentFacts) -> dict[str, Any]:
    names = set(ParentFacts.__slots__).difference(_NOT_OF_PARENT)
    return {name: _plain(getattr(parent, name)) for name in names}


def _plain(value: Any) -> Any:  # noqa: PLR0911 - a table
    """Return a value in a form that is equal if it means the same."""
    match value:
        case Batch():
            return {name: _plain(getattr(value, name)) for name in Batch.__slots__}
        case Piece():
            names = set(Piece.__struct_fields__).difference(_NOT_OF_PIECE)
            return {name: getattr(value, name) for name in names}
        case Intervals():
            return list(value)
        case Sizes():
            return value.runs(0, 1 << 62)
        case dict():
            # Empty values and counts of zero mean the same as no value.
            plain = ((key, _plain(each)) for key, each in value.items())
            return {key: each for key, each in plain if each not in ([], {}, [0, 0, 0.0])}
        case list():
            return [_plain(each) for each in value]
        case float():
            return round(value, _ROUND)  # sums of the same figures in another order
        case msgspec.Struct():
            return _plain(msgspec.to_builtins(value))
        case _:
            return value
