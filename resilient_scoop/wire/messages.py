"""Messages between processes and records of the journal: one frozen struct per fact.

A message is a header frame (`Header`) followed by body frames, each one struct encoded with
`encode`; its frames are a bundle: handled, and journaled, together or not at all. Some frames are
stored unchanged: an `Outcomes` frame made by a worker is stored in the `log` table and sent to its
parent. Names and units: `call` is the number of the parent's batch, `start`/`stop`/`count` index
items of a batch, `digests` holds `ids.DIGEST_BYTES` per item, `*_s` are seconds. `args`, `values`
and `payload` are opaque to the broker: it never unpickles (NOBODY-IN). An attempt is (epoch, no) of
a future's grant.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from resilient_scoop.wire.asked import BeginWanted, MayBegin, Noted
from resilient_scoop.wire.attempt import Attempt
from resilient_scoop.wire.base import Frame, MessagePart
from resilient_scoop.wire.callables import Define, Forget, Forgotten, Options
from resilient_scoop.wire.checkpoints import (
    Checkpoint,
    CheckpointWanted,
    Halted,
    Mark,
    OpenBlocks,
    Saved,
    Span,
    Trimmed,
    Verified,
)  # fmt: skip
from resilient_scoop.wire.header import BEAT, RESEND, Header, pack_header, unpack_header
from resilient_scoop.wire.room import NoRoom
from resilient_scoop.wire.streams import Input, Output
from resilient_scoop.wire.text import writable

__all__ = [
    "BEAT", "RESEND", "Attempt", "BeginWanted", "Checkpoint", "CheckpointWanted", "Define", "Forget",
    "Forgotten", "Halted", "Header", "Input", "Mark", "MayBegin", "NoRoom", "Noted", "OpenBlocks",
    "Options", "Output", "Saved", "Span", "Trimmed", "Verified", "pack_header", "unpack_header",
]  # fmt: skip


# Facts below are both sent and journaled.


class Part(MessagePart, frozen=True):
    """Items `[start, start + count)` of the parent's batch number `call`."""

    call: int
    start: int
    count: int
    fn: bytes
    digests: bytes
    last: bool  # the batch has no further items
    fresh: bool = False  # on replay: these items differ from the journal; compute them again


class Calls(Frame, frozen=True):
    """Calls of a parent. The next frame of the bundle is `Args`, the items' arguments in order."""

    parent: str
    attempt: Attempt
    parts: list[Part]


class Args(Frame, frozen=True):
    """The arguments of the preceding frame's items, each pickled."""

    args: list[bytes]


class Outcome(MessagePart, frozen=True):
    """Outcomes of consecutive items, with the digests of what they were computed from.

    Those from the source of a fork that are not bound to a place have `call` -1 (`runs.fork`).
    """

    call: int
    start: int
    fingerprint: bytes
    digests: bytes
    values: list[bytes]
    failed: list[int] = []  # indexes into `values` that are exceptions
    spent_s: float = 0.0  # time of computing and waiting, all items together
    task: Attempt | None = (
        None  # None: made by the broker, or found by the parent (`core.parent.moved`)
    )
    pure: bool = False  # proven to depend only on the function and these arguments
    once: bool = False  # of an `idempotent=False` call: it is never started again
    again: int = 0  # second tries of its items under `retries=`, as counted by the worker


class Outcomes(Frame, frozen=True):
    """Outcomes for one parent."""

    parent: str
    items: list[Outcome]


class Observation(MessagePart, frozen=True):
    """One answer that could have been different; `answer` is opaque to the broker."""

    no: int  # per parent, from 0
    kind: str
    at_call: int  # the parent's batch counter at this answer
    answer: bytes
    rests_on: bytes = b""  # digest of the awaited calls, if there was a time limit


class Observed(Frame, frozen=True):
    """Answers that a parent got; sent with whatever the parent does next."""

    parent: str
    attempt: Attempt
    observations: list[Observation]
    asks: bool = False  # asks for `Noted` when they are durable


class Const(Frame, frozen=True):
    """`shared.setConst`: once per name and run."""

    name: str
    digest: bytes
    payload: bytes


class Crashed(Frame, frozen=True):
    """An item was being executed when its worker died. Survives a broker restart (BLAST-RADIUS)."""

    parent: str
    call: int
    index: int
    exit: int  # exit status, or minus the signal; 0 with "timeout": it waited
    reason: str  # "crash", "oom", "timeout"
    digest: bytes
    incarnation: bytes = b""  # the dead process: each counts once
    at: float = 0.0  # seconds since 1970, for display
    tries: int = 0  # earlier failed tries in the same process, under `retries=`


class Abandoned(Frame, frozen=True):
    """Items that will not be computed: their parent has given up the batch.

    The batch ends with its present items, also if there are none to abandon.
    """

    parent: str
    call: int
    spans: list[Span]


class Intent(Frame, frozen=True):
    """`idempotent=False` items are about to start; journaled before their worker may start them."""

    parent: str
    call: int
    start: int
    count: int
    digests: bytes
    void: bool = False  # they have not started after all: the worker has given them back


class Progress(Frame, frozen=True):
    """Progress of a running item; the newest of each item is journaled, in its own table."""

    parent: str  # "" for the script itself, of which only the figures are kept
    attempt: Attempt
    call: int
    index: int
    fingerprint: bytes
    digest: bytes
    done: int | float
    total: int | float | None
    payload: bytes = b""  # for the next attempt; opaque
    tries: int = 0  # as in the attempt's `Task`
    label: str = ""  # what the figures count, from the user


class RunEnded(Frame, frozen=True):
    """The script has ended: `code` is its exit status; `failed`: it raised an exception."""

    attempt: Attempt
    code: int
    failed: bool
    message: str = ""
    calls: int = -1  # its batches, answers and output until then; -1: unknown (older runs).
    observations: int = -1  # Earlier attempts, with other code, may have got further.
    output_bytes: int = -1
    failed_at: int = -1  # length of its output before its error; -1: no error
    recorded_bytes: int = -1  # length of all output, including different output of earlier attempts
    again: list[int] = []  # observations that its next attempt does not use (`core.parent.history`)


# Messages below go from a worker, an origin or an agent to the broker.


class Held(MessagePart, frozen=True):
    """What a worker holds of a slice when it says Hello: the items without a sent outcome."""

    attempt: Attempt
    parent: str
    call: int
    fn: bytes
    spans: list[tuple[int, int]]
    digests: bytes  # of the spans, joined


class Waiting(MessagePart, frozen=True):
    """A live parent that a new broker can adopt."""

    parent: str
    attempt: Attempt
    left_s: float = -1.0  # as in `Parked`
    tries: int = 0


PROGRAM: Final = "program"
"""Node of the origin of a session: of a program that no agent has started."""


class Hello(Frame, frozen=True):
    """First message of a link. `held` and `waiting` let a new broker adopt running work."""

    role: str  # "worker", "origin", "agent"
    node: str
    name: str  # "w1"
    pid: int
    held: list[Held] = []
    waiting: list[Waiting] = []
    incarnations: list[bytes] = []  # for an agent: its running peers


class Parked(Frame, frozen=True):
    """An item waits without occupying its worker; or, if not `parked`, continues and occupies it again."""

    attempt: Attempt
    index: int
    parked: bool = True
    left_s: float = -1.0  # rest of its `timeout=`; -1: it has none
    tries: int = 0  # earlier tries in this process, under `retries=`


class Stuck(Frame, frozen=True):
    """A parked item could continue, but its worker has been executing another item for long."""

    attempt: Attempt
    index: int
    tries: int = 0  # as in `Parked`


class Returned(Frame, frozen=True):
    """Answer to `Retract`: items from `stop` on were not started and will not be started here."""

    attempt: Attempt
    stop: int
    begun: int = -1  # the requested item, if it has already started


class HistoryWanted(Frame, frozen=True):
    """A parent requests the page of its history after record `after`; 0 is the beginning.

    A parent that survived its broker begins with the first batch that lacks an outcome:
    `from_call`. The page returns `no`: a request before a broken connection may be answered late.
    """

    parent: str
    attempt: Attempt
    after: int
    from_call: int = 0
    no: int = 0


class Cancel(Frame, frozen=True):
    """`Future.cancel()`: answered by `CancelAnswer`."""

    parent: str
    attempt: Attempt
    call: int
    index: int


class Abandon(Frame, frozen=True):
    """A parent has stopped reading these batches; answered by `Abandoned`."""

    parent: str
    attempt: Attempt
    calls: list[int]


class Alive(Frame, frozen=True):
    """An agent vouches for the processes that it sees running (not stopped).

    `ended`: all processes that have ended, and whose results it still sends. They get no work; when all
    results have arrived, their deaths are reported.
    """

    incarnations: list[bytes]
    ended: list[bytes] = []


class ProcessLost(Frame, frozen=True):
    """The death of a worker or the origin, seen or caused by its agent; it was executing `on_cpu`."""

    incarnation: bytes
    exit: int
    reason: str  # "crash", "oom", "timeout", "asked"
    on_cpu: Attempt | None = None
    index: int = 0
    parent: str = ""  # with `call`: for a broker that does not know the process or the attempt
    call: int = 0
    at: float = 0.0  # seconds since 1970, for display
    tries: int = 0  # earlier tries of the item in that process, under `retries=`


class Bye(Frame, frozen=True):
    """A worker ends normally; items that it still held are given back."""


class Unfit(Frame, frozen=True):
    """A worker cannot load something from the script's process: it lacks a module, or the script itself.

    This is not an outcome: the run stops, and all records stay. The items are set aside, not given back.
    """

    parent: str  # of the batch, and the batch; empty: the worker can run nothing at all
    call: int
    fn: bytes
    reason: str
    differs: bool = False  # the function is not what it was when the items were called


Up = (
    Hello | Define | Calls | Args | Outcomes | Observed | Output | Input | Const | Parked | Stuck
    | Returned | HistoryWanted | Cancel | Alive | ProcessLost | RunEnded | Bye | Progress | Checkpoint
    | Verified | Halted | OpenBlocks | Forgotten | NoRoom | Unfit | BeginWanted | Abandon
)  # fmt: skip

# Messages below go from the broker to the others.


class Welcome(Frame, frozen=True):
    """Answer to Hello."""

    epoch: int
    seed: int
    lease_s: float
    dropped: list[Attempt] = []  # held attempts to stop and forget


class Task(MessagePart, frozen=True):
    """A slice of a batch to run, `len(args)` items from `start`."""

    no: int
    parent: str
    call: int
    start: int
    fn: bytes
    digests: bytes
    args: list[bytes]
    replay: bool = False  # the (single) item has a history: request it
    tries: int = 0  # number of known earlier attempts
    resume: bytes = b""  # the payload that an earlier attempt of the (single) item saved
    is_asked: bool = True  # its parent has made the call since the run was resumed


class Grant(Frame, frozen=True):
    """Tasks to run, in any order; each runs under the attempt (epoch of the link, its number)."""

    tasks: list[Task]


class History(Frame, frozen=True):
    """Head of a page: the `Outcomes`, `Observed` and `Checkpoint` frames after it are up to `upto`."""

    parent: str
    attempt: Attempt
    upto: int
    last: bool
    calls: int  # above the numbers of all journaled batches of the parent
    output_bytes: int = 0  # length of the script's recorded output
    checkpoints: list[Mark] = []  # in the log, on this page or not
    dropped: list[Span] = []  # batches without records
    trimmed_by: list[tuple[str, int]] = []  # the blocks that cover these
    no: int = 0  # number of the request


class Retract(Frame, frozen=True):
    """Give back the items of this slice that are not started (other workers are idle)."""

    attempt: Attempt
    start: int = -1  # from this item on, which is to be canceled; nothing if it has started


class Drop(Frame, frozen=True):
    """Stop these attempts and forget them: canceled, fenced, or done elsewhere."""

    attempts: list[Attempt]


class Evict(Frame, frozen=True):
    """One parked item of a slice continues elsewhere: end its greenlet."""

    attempt: Attempt
    index: int


class CancelAnswer(Frame, frozen=True):
    """Whether `Cancel` came in time: sent after the outcome, if there is one."""

    parent: str
    call: int
    index: int
    cancelled: bool


class Kill(Frame, frozen=True):
    """To an agent: end this process now."""

    incarnation: bytes
    reason: str
    attempt: Attempt | None = None  # only while it is being executed


class Stop(Frame, frozen=True):
    """The run ends or is interrupted: stop working, say Bye, end."""

    reason: str


Down = (
    Welcome | Define | Grant | History | Outcomes | Observed | Retract | Drop | Evict | CancelAnswer
    | Const | Kill | Stop | Checkpoint | Saved | CheckpointWanted | Forget | MayBegin
    | Noted | Abandoned
)  # fmt: skip
Logged = Calls | Outcomes | Observed | Crashed | Intent | Checkpoint | Trimmed | Abandoned

_encode = msgspec.msgpack.Encoder().encode


def encode(message: Any) -> bytes:
    """Return the frame of a message."""
    try:
        return _encode(message)
    except UnicodeEncodeError:  # a file name in it is not UTF-8
        return _encode(writable(message))


decode_up = msgspec.msgpack.Decoder(Up).decode
decode_down = msgspec.msgpack.Decoder(Down).decode
decode_logged = msgspec.msgpack.Decoder(Logged).decode
