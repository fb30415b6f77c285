"""Events of the machines, and actions for their shells.

A shell carries out a machine's actions in order, with one exception: an `Offer` depends on no
record and may be sent at once, while everything else in a turn waits until the `Put`s and `Drop`s
of the turn are committed.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

import msgspec

from resilient_scoop.ids import PeerId
from resilient_scoop.wire.checkpoints import Mark, Span
from resilient_scoop.wire.messages import Attempt, Logged, Task, Up


class Table(IntEnum):
    """A table of the journal; the comment gives its key and value."""

    META = 0  # name -> bytes: run, format, epoch, ended, failed; INPUT_KEY + number u64 -> `Input` frame
    LOG = 1  # log_prefix(parent) + sequence u64 -> a `Logged` frame
    ARGS = 2  # key of the LOG record (a `Calls`) -> its `Args` frame
    DEFINE = 3  # id of a function -> `Define` frame
    CONST = 4  # name (utf-8) -> `Const` frame
    OUTPUT = 5  # offset u64 -> `Output` frame
    EVENT = 6  # sequence u64 -> msgpack, only for display
    PROGRESS = 8  # log_prefix(parent) + call u64 + index u64 -> `Progress` frame
    HISTORY = 15  # table u8 + key of a record that was dropped (--keep-history) -> that record


INPUT_KEY: Final = b"input"
FAILED_KEY: Final = b"failed"
"""Key of the `RunEnded` of a failed script, after its run was continued."""
PYTHON_KEY: Final = b"python"
"""Key of the minor version of Python, such as 3.11, that the broker had."""


class Put(msgspec.Struct, frozen=True):
    """Write one record. `forced`: commit now; else it may be written with the next forced commit."""

    table: Table
    key: bytes
    value: bytes
    forced: bool = True


class Erase(msgspec.Struct, frozen=True):
    """Delete every record of `table` whose key begins with `prefix`."""

    table: Table
    prefix: bytes


class Send(msgspec.Struct, frozen=True):
    """Send encoded frames as one bundle once the records of this turn are durable."""

    to: PeerId
    frames: list[bytes]


class Offer(msgspec.Struct, frozen=True):
    """Send at once: its content depends on no record of this turn (grants, retractions)."""

    to: PeerId
    frames: list[bytes]


class SendHistory(msgspec.Struct, frozen=True):
    """Read a page of LOG records (after, upto] of `prefix` and send it, once this turn is durable."""

    to: PeerId
    parent: str
    attempt: Attempt
    prefix: bytes
    after: int
    upto: int
    calls: int
    output_bytes: int
    checkpoints: list[Mark] = []
    dropped: list[Span] = []
    trimmed_by: list[tuple[str, int]] = []
    no: int = 0


class StoredArgs(msgspec.Struct, frozen=True):
    """The place of a task's arguments: items `[offset, offset + count)` of the ARGS record `key`."""

    key: bytes
    offset: int
    count: int


class StoredResume(msgspec.Struct, frozen=True):
    """The place of a task item's payload: the PROGRESS record `key`, if it has this mark."""

    key: bytes
    mark: bytes


class GrantStored(msgspec.Struct, frozen=True):
    """Send a grant whose tasks lack a part, which is read back once this turn is durable."""

    to: PeerId
    before: list[bytes]  # frames to be sent before
    tasks: list[Task]
    args: list[StoredArgs | None]  # None: the task has its arguments
    resumes: list[StoredResume | None]  # None: there is no payload for it


class Sweep(msgspec.Struct, frozen=True):
    """Read a page of LOG records (after, seq] of `prefix` once this turn is durable: `Swept`."""

    parent: str
    prefix: bytes
    seq: int
    after: int


class CutHost(msgspec.Struct, frozen=True):
    """Close the connections of a host at once, and accept no new ones; `peers` are its processes."""

    host: str
    why: str
    peers: list[PeerId]


class Discard(msgspec.Struct, frozen=True):
    """Remove the file of a checkpoint once this turn is durable."""

    name: bytes


Change = Put | Erase


class Heard(msgspec.Struct, frozen=True):
    """A bundle arrived, in order and for the first time on its link; `raw[i]` encodes `messages[i]`."""

    peer: PeerId
    messages: list[Up]
    raw: list[bytes]
    host: str | None = None  # the other host that the sender belongs to; None: this one


class Tick(msgspec.Struct, frozen=True):
    """Time has passed."""


class Interrupt(msgspec.Struct, frozen=True):
    """The run is to stop: assign no more work, keep everything."""

    reason: str


class AskCheckpoints(msgspec.Struct, frozen=True):
    """Ask every parent to save at its next commit; then, with `hands_over`, stop as for `Interrupt`."""

    hands_over: bool
    grace_s: float  # how long to wait for them


class Lied(msgspec.Struct, frozen=True):
    """A process of another host has broken a rule; its message was dropped."""

    peer: PeerId
    host: str
    why: str


class DrainHost(msgspec.Struct, frozen=True):
    """A host is to leave the run when it has done what it has begun, or at its deadline."""

    host: str
    deadline_s: float | None = None


class RevokeHost(msgspec.Struct, frozen=True):
    """A host is to be cut off."""

    host: str
    why: str = "it was revoked"


class AgentOver(msgspec.Struct, frozen=True):
    """The agent of a host and all its processes have ended, as that host itself has seen.

    `died`: not in order. It is believed of the host's present agent only (HO7).
    """

    host: str
    agent: PeerId
    died: bool


class JoinHost(msgspec.Struct, frozen=True):
    """A host is enrolled again."""

    host: str


class Swept(msgspec.Struct, frozen=True):
    """The page for a `Sweep`."""

    parent: str
    seq: int
    records: list[tuple[int, Logged]]
    upto: int
    last: bool


Action = Put | Erase | Send | Offer | SendHistory | GrantStored | Sweep | Discard | CutHost
Event = (
    Heard | Tick | Interrupt | Swept | AskCheckpoints | Lied | DrainHost | RevokeHost | JoinHost | AgentOver
)  # fmt: skip
