"""What crosses a process boundary and what the journal holds: one frozen struct per fact.

A message is a header frame (`Header`) and then body frames, each one struct encoded with `encode`;
its frames are a bundle: handled, and journaled, together or not at all. Some travel and are stored as
they came: an `Outcomes` frame made by a worker is what the `log` table holds and its parent gets.
Words and units: `call` is the parent's call number, `start`/`stop`/`count` index items of a batch,
`digests` holds `ids.DIGEST_BYTES` per item, `*_s` are seconds. `args`, `values` and `payload` are opaque
to the broker: it never unpickles (NOBODY-IN). An attempt is (epoch, no) of a future's grant.
"""

from __future__ import annotations

from typing import Any

import msgspec

from resilient_scoop.wire.asked import BeginWanted, MayBegin, Noted
from resilient_scoop.wire.attempt import Attempt
from resilient_scoop.wire.base import Frame, Piece
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


# --- facts that are both sent and journaled ---------------------------------------------------


class Part(Piece, frozen=True):
    """Items `[start, start + count)` of the batch that is the parent's call number `call`."""

    call: int
    start: int
    count: int
    fn: bytes
    digests: bytes
    last: bool  # no items follow
    fresh: bool = False  # on replay: the journal has these items otherwise; compute again


class Calls(Frame, frozen=True):
    """A parent asks for work. The next frame of the bundle is `Args`, the items' arguments in order."""

    parent: str
    attempt: Attempt
    parts: list[Part]


class Args(Frame, frozen=True):
    """The arguments of the preceding frame's items, each pickled."""

    args: list[bytes]


class Outcome(Piece, frozen=True):
    """Outcomes of consecutive items, and what they were computed from.

    Those of a fork's source that are bound to no place there have `call` -1 (`runs.fork`).
    """

    call: int
    start: int
    fingerprint: bytes
    digests: bytes
    values: list[bytes]
    failed: list[int] = []  # indexes into `values` that are exceptions
    spent_s: float = 0.0  # time on the CPU and waiting, all items together
    task: Attempt | None = (
        None  # None: made by the broker, or found by the parent (`core.parent.moved`)
    )
    pure: bool = False  # proven to depend on nothing but the function and these arguments
    once: bool = False  # of an `idempotent=False` call: it is never started again
    again: int = 0  # second tries of its items under `retries=`, as far as the worker counted them


class Outcomes(Frame, frozen=True):
    """Outcomes for one parent."""

    parent: str
    items: list[Outcome]


class Observation(Piece, frozen=True):
    """One answer that could have come out differently; `answer` is opaque to the broker."""

    no: int  # per parent, from 0
    kind: str
    at_call: int  # the parent's call counter when it was told
    answer: bytes


class Observed(Frame, frozen=True):
    """What a parent was told; rides with whatever the parent does next."""

    parent: str
    attempt: Attempt
    observations: list[Observation]
    asks: bool = False  # for `Noted`, once they are durable


class Const(Frame, frozen=True):
    """`shared.setConst`: once per name and run."""

    name: str
    digest: bytes
    payload: bytes


class Crashed(Frame, frozen=True):
    """An item was on the CPU when its worker died. Survives a broker restart (BLAST-RADIUS)."""

    parent: str
    call: int
    index: int
    exit: int  # as waitpid tells it: exit status, or minus the signal; 0 with "timeout": it waited
    reason: str  # "crash", "oom", "timeout"
    digest: bytes
    incarnation: bytes = b""  # whose death it was: each counts once
    at: float = 0.0  # seconds since 1970, for eyes
    tries: int = 0  # that failed in the same process before, under `retries=`


class Abandoned(Frame, frozen=True):
    """Items that were asked for and will not be computed: their parent has given up the call.

    The call ends with what it has, also where there are no such items.
    """

    parent: str
    call: int
    spans: list[Span]


class Intent(Frame, frozen=True):
    """`idempotent=False` items are about to begin; journaled before their worker may do so."""

    parent: str
    call: int
    start: int
    count: int
    digests: bytes
    void: bool = False  # they have not begun after all: the worker has given them back


class Progress(Frame, frozen=True):
    """What a running item says of itself; the newest of an item is journaled, in a table of its own."""

    parent: str  # "" for the script itself, whose figures are kept and nothing else
    attempt: Attempt
    call: int
    index: int
    fingerprint: bytes
    digest: bytes
    done: int | float
    total: int | float | None
    payload: bytes = b""  # what the next attempt finds; opaque
    tries: int = 0  # as in the attempt's `Task`
    label: str = ""  # what the figures count, as the user says


class RunEnded(Frame, frozen=True):
    """The script came to its end: `code` is its exit status, `failed` that it raised."""

    attempt: Attempt
    code: int
    failed: bool
    message: str = ""
    calls: int = -1  # that it made, was told and wrote until there; -1: not known (older runs).
    observations: int = -1  # Earlier attempts, of other code, may have come further.
    output_bytes: int = -1
    failed_at: int = -1  # of what it wrote, how much stood before its error; -1: it raised none
    recorded_bytes: int = -1  # of output in all, what earlier attempts wrote otherwise included


# --- up: worker, origin or agent to broker ----------------------------------------------------


class Held(Piece, frozen=True):
    """What a worker holds of a slice when it says Hello: the items with no outcome sent yet."""

    attempt: Attempt
    parent: str
    call: int
    fn: bytes
    spans: list[tuple[int, int]]
    digests: bytes  # of the spans, one behind the other


class Waiting(Piece, frozen=True):
    """A live parent, to be adopted by a new broker."""

    parent: str
    attempt: Attempt
    left_s: float = -1.0  # as in `Parked`
    tries: int = 0


class Hello(Frame, frozen=True):
    """First message of a link. `held` and `waiting` let a new broker adopt what is under way."""

    role: str  # "worker", "origin", "agent"
    node: str
    name: str  # "w1"
    pid: int
    held: list[Held] = []
    waiting: list[Waiting] = []
    incarnations: list[bytes] = []  # an agent's: the peers that it has running


class Parked(Frame, frozen=True):
    """An item waits and no longer takes up its worker; or, not `parked`, goes on and does again."""

    attempt: Attempt
    index: int
    parked: bool = True
    left_s: float = -1.0  # of its `timeout=`; -1: it has none
    tries: int = 0  # in this process before, under `retries=`


class Stuck(Frame, frozen=True):
    """A parked item could go on, but its worker has been in another item for long."""

    attempt: Attempt
    index: int
    tries: int = 0  # as in `Parked`


class Returned(Frame, frozen=True):
    """Answer to `Retract`: items from `stop` on were not started and never will be here."""

    attempt: Attempt
    stop: int
    begun: int = -1  # the item that was to be given back, where it comes too late


class HistoryWanted(Frame, frozen=True):
    """A parent wants the page of its history after record `after`; 0 is the beginning.

    One that outlived its broker begins with the first call that misses an outcome: `from_call`.
    `no` comes back with the page: what was asked for before a cut may be answered after all.
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
    """A parent reads nothing more of these calls; answered by `Abandoned`."""

    parent: str
    attempt: Attempt
    calls: list[int]


class Alive(Frame, frozen=True):
    """An agent vouches for the processes that it sees running (not stopped)."""

    incarnations: list[bytes]


class ProcessLost(Frame, frozen=True):
    """An agent saw a worker or the origin die, or killed it; `on_cpu` is what it was executing."""

    incarnation: bytes
    exit: int
    reason: str  # "crash", "oom", "timeout", "asked"
    on_cpu: Attempt | None = None
    index: int = 0
    parent: str = ""  # with `call`: for a broker that knows neither process nor attempt
    call: int = 0
    at: float = 0.0  # seconds since 1970, for eyes
    tries: int = 0  # of the item in that process before, under `retries=`


class Bye(Frame, frozen=True):
    """A worker ends in order; what it still held is given back."""


class Unfit(Frame, frozen=True):
    """A worker cannot load what the script's process sent: it lacks a module, or the script itself.

    That is no outcome: the run is to stop, and all is kept. The items are set aside, not given back.
    """

    parent: str  # of the call, and the call; empty: the worker can do nothing at all
    call: int
    fn: bytes
    reason: str


Up = (
    Hello | Define | Calls | Args | Outcomes | Observed | Output | Input | Const | Parked | Stuck
    | Returned | HistoryWanted | Cancel | Alive | ProcessLost | RunEnded | Bye | Progress | Checkpoint
    | Verified | Halted | OpenBlocks | Forgotten | NoRoom | Unfit | BeginWanted | Abandon
)  # fmt: skip

# --- down: broker to the others ---------------------------------------------------------------


class Welcome(Frame, frozen=True):
    """Answer to Hello."""

    epoch: int
    seed: int
    lease_s: float
    dropped: list[Attempt] = []  # of what was held: stop and forget


class Task(Piece, frozen=True):
    """A slice of a batch to run, `len(args)` items from `start`."""

    no: int
    parent: str
    call: int
    start: int
    fn: bytes
    digests: bytes
    args: list[bytes]
    replay: bool = False  # the (single) item has a history: ask for it
    tries: int = 0  # earlier attempts, as far as is known
    resume: bytes = b""  # the payload that an earlier attempt of the (single) item kept


class Grant(Frame, frozen=True):
    """Run these, in any order; each runs under the attempt (epoch of the link, its number)."""

    tasks: list[Task]


class History(Frame, frozen=True):
    """Head of a page: the `Outcomes`, `Observed` and `Checkpoint` frames behind it are up to `upto`."""

    parent: str
    attempt: Attempt
    upto: int
    last: bool
    calls: int  # the parent's calls that were ever journaled have numbers below this
    output_bytes: int = 0  # of the script's output, how much was recorded
    checkpoints: list[Mark] = []  # that the log holds, this page or not
    dropped: list[Span] = []  # calls of which it no longer holds anything
    trimmed_by: list[tuple[str, int]] = []  # the blocks that cover these
    no: int = 0  # of the question


class Retract(Frame, frozen=True):
    """Give back what of this slice is not started (others are idle)."""

    attempt: Attempt
    start: int = -1  # from this item on, which is to be cancelled; nothing where it is begun


class Drop(Frame, frozen=True):
    """Stop these attempts and forget them: cancelled, fenced, or done elsewhere."""

    attempts: list[Attempt]


class Evict(Frame, frozen=True):
    """One parked item of a slice goes on elsewhere: end its greenlet."""

    attempt: Attempt
    index: int


class CancelAnswer(Frame, frozen=True):
    """Whether `Cancel` came in time: behind the outcome, if there is one."""

    parent: str
    call: int
    index: int
    cancelled: bool


class Kill(Frame, frozen=True):
    """To an agent: end this process now."""

    incarnation: bytes
    reason: str
    attempt: Attempt | None = None  # only while it is on the CPU


class Stop(Frame, frozen=True):
    """The run ends or is interrupted: finish nothing more, say Bye, end."""

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
    except UnicodeEncodeError:  # a file's name in it is not UTF-8
        return _encode(writable(message))


decode_up = msgspec.msgpack.Decoder(Up).decode
decode_down = msgspec.msgpack.Decoder(Down).decode
decode_logged = msgspec.msgpack.Decoder(Logged).decode
