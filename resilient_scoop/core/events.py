"""What the machines take in, and what they ask their shells to do.

A shell carries out a machine's actions in their order with one exception: `Offer` rests on nothing
and may leave at once, while everything else of a turn waits until the turn's `Put`s and `Drop`s are
committed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final

from resilient_scoop.ids import PeerId
from resilient_scoop.wire.checkpoints import Mark, Span
from resilient_scoop.wire.messages import Attempt, Logged, Task, Up


class Table(IntEnum):
    """A table of the journal; the comment gives its key and value."""

    META = 0  # name -> bytes: run, format, epoch, ended; INPUT_KEY + number u64 -> `Input` frame
    LOG = 1  # log_prefix(parent) + sequence u64 -> a `Logged` frame
    ARGS = 2  # key of the LOG record (a `Calls`) -> its `Args` frame
    DEFINE = 3  # FnId -> `Define` frame
    CONST = 4  # name (utf-8) -> `Const` frame
    OUTPUT = 5  # offset u64 -> `Output` frame
    EVENT = 6  # sequence u64 -> msgpack, for eyes only
    PROGRESS = 8  # log_prefix(parent) + call u64 + index u64 -> `Progress` frame
    HISTORY = 15  # table u8 + key of a record that was dropped (--keep-history) -> that record


INPUT_KEY: Final = b"input"

# --- actions ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Put:
    """Write one record. `forced`: commit now; else it may ride with the next forced commit."""

    table: Table
    key: bytes
    value: bytes
    forced: bool = True


@dataclass(frozen=True, slots=True)
class Erase:
    """Delete every record of `table` whose key begins with `prefix`."""

    table: Table
    prefix: bytes


@dataclass(frozen=True, slots=True)
class Send:
    """Send encoded frames as one bundle once the records of this turn are durable."""

    to: PeerId
    frames: list[bytes]


@dataclass(frozen=True, slots=True)
class Offer:
    """Send at once: nothing that is not durable can be learnt from it (grants, retractions)."""

    to: PeerId
    frames: list[bytes]


@dataclass(frozen=True, slots=True)
class SendHistory:
    """Read a page of LOG records (after, upto] of `prefix` and send it, once this turn is durable."""

    to: PeerId
    parent: str
    attempt: Attempt
    prefix: bytes
    after: int
    upto: int
    calls: int
    output_bytes: int
    checkpoints: list[Mark] = field(default_factory=list)
    dropped: list[Span] = field(default_factory=list)
    trimmed_by: list[tuple[str, int]] = field(default_factory=list)
    no: int = 0


@dataclass(frozen=True, slots=True)
class StoredArgs:
    """Where a task's arguments are: items `[offset, offset + count)` of the ARGS record `key`."""

    key: bytes
    offset: int
    count: int


@dataclass(frozen=True, slots=True)
class StoredResume:
    """Where the payload of a task's item is: the PROGRESS record `key`, if it has this mark."""

    key: bytes
    mark: bytes


@dataclass(frozen=True, slots=True)
class GrantStored:
    """Send a grant whose tasks lack a part, read back once this turn is durable."""

    to: PeerId
    before: list[bytes]  # frames to go in front
    tasks: list[Task]
    args: list[StoredArgs | None]  # None: the task has its arguments
    resumes: list[StoredResume | None]  # None: there is no payload for it


@dataclass(frozen=True, slots=True)
class Sweep:
    """Look at a page of LOG records (after, seq] of `prefix` once this turn is durable: `Swept`."""

    parent: str
    prefix: bytes
    seq: int
    after: int


@dataclass(frozen=True, slots=True)
class Discard:
    """Remove the file of a checkpoint once this turn is durable."""

    name: bytes


Change = Put | Erase


# --- events -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Heard:
    """A bundle arrived, in order and for the first time on its link; `raw[i]` encodes `messages[i]`."""

    peer: PeerId
    messages: list[Up]
    raw: list[bytes]


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed."""


@dataclass(frozen=True, slots=True)
class Interrupt:
    """The user wants the run to stop: hand out nothing more, keep everything."""

    reason: str


@dataclass(frozen=True, slots=True)
class AskCheckpoints:
    """Have every parent save at its next commit; then, with `hands_over`, stop as by `Interrupt`."""

    hands_over: bool
    grace_s: float  # how long to wait for them


@dataclass(frozen=True, slots=True)
class Swept:
    """The page that a `Sweep` asked for."""

    parent: str
    seq: int
    records: list[tuple[int, Logged]]
    upto: int
    last: bool


Action = Put | Erase | Send | Offer | SendHistory | GrantStored | Sweep | Discard
Event = Heard | Tick | Interrupt | Swept | AskCheckpoints
