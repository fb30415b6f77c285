"""What is said and written down of checkpoints.

A block is named by (name, opening): the n-th `durable` of that name in its parent. Its generations
rise from 1; `base` is the generation that one goes on from. Counters are the parent's own: `entry`
and `entry_observation` where the block was entered, `calls` and `observations` where the checkpoint
was made. So it covers calls `[entry, calls)` but those that are `pending`; what is recorded of those
that are `held` stays, too, as long as the generation does.
"""

from __future__ import annotations

from resilient_scoop.wire.attempt import Attempt
from resilient_scoop.wire.base import Frame, Piece

Span = tuple[int, int]


class Checkpoint(Frame, frozen=True):
    """A parent's state as of a point of its own; one record, forced. `payload` is opaque."""

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
    pending: list[int] = []  # calls below `calls` whose futures are in the state, not settled
    outer: list[tuple[str, int]] = []  # the blocks around it, outermost first
    openings: dict[str, int] = {}  # how many blocks of each name the parent had opened
    output_bytes: int = 0  # what the script had written
    code: bytes = b""  # digest of the code that holds the block
    input_bytes: int = 0  # what the script had read
    held: list[int] = []  # calls of which the process that made it had not read all: C5


class Verified(Frame, frozen=True):
    """A stored checkpoint has been loaded successfully: what its base covers may be dropped."""

    parent: str
    attempt: Attempt
    name: str
    opening: int
    gen: int


class Halted(Frame, frozen=True):
    """A future cannot go on, and must not end with an outcome: the run is to stop, all is kept."""

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
    """To origin and workers: every parent with an open block is to save at its next commit."""

    no: int  # rises over all epochs


class OpenBlocks(Frame, frozen=True):
    """Answer to `CheckpointWanted`, and said again when it changes: the parents with an open block."""

    no: int
    parents: list[str]


class Mark(Piece, frozen=True):
    """A generation that the log of a parent holds."""

    name: str
    opening: int
    gen: int


class Trimmed(Frame, frozen=True):
    """As of this record, the log no longer vouches for these calls and observations of a parent.

    All that is known of them is that they are done. Absolute: it stands for all that was trimmed
    before, too. Their records are erased afterwards, bit by bit.
    """

    parent: str
    calls: list[Span]
    told: list[Span]
    items: int  # how many items these calls had
    blocks: list[tuple[str, int]]  # (name, opening) of those whose checkpoints cover them
