"""The script's output and input in a repaired journal: up to a gap, or with a filled gap.

Nothing after a gap can be used: the replay writes, or reads, it again. But output before the
checkpoint from which the script continues is not written again; there a line replaces the lost
part.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, TypeVar

import msgspec

from resilient_scoop import ids
from resilient_scoop.core.events import INPUT_KEY, Change, Erase, Put, Table
from resilient_scoop.counts import counted
from resilient_scoop.wire.messages import Attempt, Output, decode_up, encode

if TYPE_CHECKING:
    from resilient_scoop.journal.journal import Journal

_NOBODY: Final = Attempt(0, 0)
Record = TypeVar("Record")


def decoded(decode: Callable[[bytes], Record], raw: bytes) -> Record | None:
    """Return a record, or None for one of another version, which is kept unchanged."""
    try:
        return decode(raw)
    except msgspec.DecodeError:
        return None


def drop_output_after_gap(journal: Journal, covered: int) -> tuple[list[str], list[Change]]:
    """Remove output after a gap; a gap before byte `covered` is filled instead."""
    lost: list[str] = []
    changes: list[Change] = []
    gap, at = None, 0
    for key, raw in journal.scan(Table.OUTPUT):
        piece = decoded(decode_up, raw)
        start = piece.offset if isinstance(piece, Output) else None
        if start is not None and at < start <= covered:
            lost.append(
                f"table output: {counted(start - at, 'byte')} at byte {at}; a line marks the place"
            )
            changes.append(_filler(at, start))
            at = start
        if isinstance(piece, Output) and piece.offset <= at:
            at = max(at, piece.offset + len(piece.data))
        else:
            gap = at if gap is None else gap
            changes.append(Erase(Table.OUTPUT, key))
    if at < covered:
        lost.append(
            f"table output: {counted(covered - at, 'byte')} at byte {at}; a line marks the place"
        )
        changes.append(_filler(at, covered))
    if gap is not None:
        lost.append(f"table output: a gap at byte {max(gap, covered)}; what follows is dropped")
    return lost, changes


def _filler(start: int, stop: int) -> Put:
    size = stop - start
    text = f"\n[rscoop: {counted(size, 'byte')} of output lost]".encode()[: size - 1]
    data = text.ljust(size - 1) + b"\n"
    return Put(Table.OUTPUT, ids.record_key(b"", start), encode(Output(_NOBODY, start, data)))


def drop_input_after_gap(journal: Journal) -> tuple[list[str], list[Change]]:
    """Remove input that the script read after a gap."""
    keys = [key for key, _ in journal.scan(Table.META) if key.startswith(INPUT_KEY)]
    numbers = [int.from_bytes(key[len(INPUT_KEY) :], "big") for key in keys]
    first = next((at for at, number in enumerate(numbers) if number != at), len(keys))
    lost = f"table meta: read {first} of the script's input; what it read next is dropped"
    changes: list[Change] = [Erase(Table.META, key) for key in keys[first:]]
    return [lost] if changes else [], changes
