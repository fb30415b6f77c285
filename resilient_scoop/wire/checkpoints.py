"""Messages and records of checkpoints.

A block is named by (name, opening): the n-th `durable` of that name in its parent. Its generations
rise from 1; `base` is the generation from which it continued. Counters are those of the parent:
`entry` and `entry_observation` at the entry of the block, `calls` and `observations` at the
checkpoint. So it covers batches `[entry, calls)` except those that are `pending`; records of those
that are `held` also stay while the generation does.
"""

from __future__ import annotations

from resilient_scoop.wire.attempt import Attempt
from resilient_scoop.wire.base import Frame, MessagePart

Span = tuple[int, int]


class Checkpoint(Frame, frozen=True):
    """A parent's state at some point; one record, forced. `payload` is opaque."""

    parent: str
    attempt: Attempt
    name: str
    opening: int
    gen: int
    base: int  # 0: none
    entry: int
    entry_observation: int
    calls: int
    observations: int
    payload: bytes  # the state, or `B` and the name of its file
    pending: list[int] = []  # batches below `calls` whose futures are in the state, not settled
    outer: list[tuple[str, int]] = []  # the blocks around it, outermost first
    openings: dict[str, int] = {}  # number of blocks of each name that the parent had opened
    output_bytes: int = 0  # length of the script's output
    code: bytes = b""  # digest of the code that holds the block
    input_bytes: int = 0  # length of the script's input
    held: list[int] = []  # batches that its process had not read completely: C5


class Verified(Frame, frozen=True):
    """A stored checkpoint was loaded successfully: records that its base covers may be dropped."""

    parent: str
    attempt: Attempt
    name: str
    opening: int
    gen: int


class Halted(Frame, frozen=True):
    """A future cannot continue, and must not end with an outcome: the run stops, all records stay."""

    parent: str
    attempt: Attempt
    reason: str


class Saved(Frame, frozen=True):
    """Answer to `Checkpoint`: it is durable."""

    parent: str
    name: str
    opening: int
    gen: int


class CheckpointWanted(Frame, frozen=True):
    """To origin and workers: every parent with an open block must save at its next commit."""

    no: int  # rises over all epochs


class OpenBlocks(Frame, frozen=True):
    """Answer to `CheckpointWanted`, repeated after changes: the parents with an open block."""

    no: int
    parents: list[str]


class Mark(MessagePart, frozen=True):
    """A generation in the log of a parent."""

    name: str
    opening: int
    gen: int


class Trimmed(Frame, frozen=True):
    """From this record on, the log need not hold these batches and observations of a parent.

    Only the fact that they are done is kept. Absolute: it includes everything that was trimmed
    before. Their records are erased afterwards, in steps.
    """

    parent: str
    calls: list[Span]
    observed: list[Span]
    items: int  # number of items of these batches
    blocks: list[tuple[str, int]]  # (name, opening) of the blocks whose checkpoints cover them
