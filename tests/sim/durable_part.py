"""What of a broker's state is in its journal."""

from __future__ import annotations

from typing import Any

from resilient_scoop import ids
from resilient_scoop.core.facts.parent import Parent
from resilient_scoop.core.facts.state import State


def durable_part(state: State) -> dict[str, Any]:
    """Return what of a state is in the journal, in a form that can be compared."""
    parents = {path: _parent_part(parent) for path, parent in sorted(state.parents.items())}
    return {
        "output": state.output_bytes,
        "kept": state.words.batches,
        "items": (state.items_known, state.items_done),
        "tally": state.tally.said,
        "parents": {path: part for path, part in parents.items() if part is not None},
    }


def _parent_part(parent: Parent) -> tuple[Any, ...] | None:
    batches = {
        call: (list(b.undone), list(b.done), b.last, _digests(b.pieces, list(b.undone)))
        for call, b in sorted(parent.batches.items())
    }
    crashes = {key: len(each) for key, each in parent.crashes.items() if each}
    intents = {call: list(spans) for call, spans in parent.intents.items() if spans}
    cancelled = {call: list(spans) for call, spans in parent.cancelled.items() if spans}
    blocks = {key: [kept.gen for kept in each] for key, each in parent.blocks.items()}
    trimmed = (list(parent.dropped), list(parent.untold), blocks)
    noted = (crashes, intents, cancelled, trimmed)
    if not (batches or parent.finished or parent.next_observation):
        return None
    finished = (list(parent.finished), parent.sizes)
    return batches, finished, parent.next_observation, parent.logged, noted


def _digests(pieces: list[Any], undone: list[tuple[int, int]]) -> dict[int, bytes]:
    width = ids.DIGEST_BYTES
    found = {}
    for piece in pieces:
        for index in range(piece.start, piece.stop):
            if any(low <= index < high for low, high in undone):
                at = index - piece.start
                found[index] = piece.digests[at * width : (at + 1) * width]
    return found
