"""A generation of a block's checkpoints, as the log has it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from resilient_scoop.wire.payload_tags import FILE

if TYPE_CHECKING:
    from resilient_scoop.wire.checkpoints import Checkpoint, Verified

Key = tuple[str, int]
"""A block: its name, and the call at which it was opened."""


class Generation(msgspec.Struct, frozen=True):
    """A checkpoint in the log."""

    seq: int
    gen: int
    base: int
    entry: int
    entry_observation: int
    calls: int
    observations: int
    pending: tuple[int, ...]
    outer: tuple[Key, ...]
    openings: dict[str, int]
    file: bytes  # the name of its file, if it has one
    held: tuple[int, ...] = ()


def key_of(record: Checkpoint | Verified) -> Key:
    """Return the block that a record is about."""
    return record.name, record.opening


def generation_of(record: Checkpoint, seq: int) -> Generation:
    """Return what is kept in memory of a checkpoint's record."""
    return Generation(
        seq, record.gen, record.base, record.entry, record.entry_observation, record.calls,
        record.observations, tuple(record.pending), tuple(record.outer), record.openings,
        record.payload[1:] if record.payload[:1] == FILE else b"", tuple(record.held),
    )  # fmt: skip
