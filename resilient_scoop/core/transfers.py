"""Two machines of an agent that move one file each between its host and the run's folder.

Messages may be lost with a connection, so every request can be repeated: what counts is how much has
arrived in a row. Both ends continue from there, also with a new broker. A file is complete when its
SHA-256 is that of its source; if it is not, the transfer begins again.

The life of a transfer (`_NEXT`), by what the other end answers:

    state    PART     ALL      AGAIN    FAIL     FULL
    BEGUN    MOVING   WHOLE    -        FAILED   FULL
    MOVING   MOVING   WHOLE    MOVING   FAILED   FULL
    WHOLE    WHOLE    WHOLE    MOVING   -        -
    FAILED   -        -        -        -        -
    FULL     -        -        -        -        -

PART is an answer after which more is missing, or that repeats an earlier one; ALL the one after which
nothing is missing; AGAIN says that what has arrived was lost, or is not what was sent; FULL that the disk
of the other end has no space. FAILED and FULL are ends: the agent reports them to the process that waits,
and drops the transfer. What is not listed is an error.

  TR1  What is written to a file is its content from the beginning, without gaps.
  TR2  At most `window` chunks are on their way, so that a slow network holds few of them.
  TR3  What is not answered within `PATIENCE_S` of the last answer is requested again.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import TYPE_CHECKING, Final

from resilient_scoop.wire.files import CHUNK_BYTES

if TYPE_CHECKING:
    from resilient_scoop.wire.files import Chunk, Stored

PATIENCE_S: Final = 5.0
QUICK_S: Final = 0.5
"""A chunk that is answered sooner lets the window grow, a later one lets it shrink."""
WINDOW_MIN: Final = 2
WINDOW_MAX: Final = 64


class TransferState(Enum):
    """The states of a transfer."""

    BEGUN = auto()  # the other end has not answered
    MOVING = auto()
    WHOLE = auto()  # all of the file has arrived
    FAILED = auto()
    FULL = auto()


class TransferEvent(Enum):
    """The answers of the other end."""

    PART = auto()
    ALL = auto()
    AGAIN = auto()
    FAIL = auto()
    FULL = auto()


_NEXT: Final[dict[TransferState, dict[TransferEvent, TransferState]]] = {
    TransferState.BEGUN: {
        TransferEvent.PART: TransferState.MOVING,
        TransferEvent.ALL: TransferState.WHOLE,
        TransferEvent.FAIL: TransferState.FAILED,
        TransferEvent.FULL: TransferState.FULL,
    },
    TransferState.MOVING: {
        TransferEvent.PART: TransferState.MOVING,
        TransferEvent.ALL: TransferState.WHOLE,
        TransferEvent.AGAIN: TransferState.MOVING,
        TransferEvent.FAIL: TransferState.FAILED,
        TransferEvent.FULL: TransferState.FULL,
    },
    TransferState.WHOLE: {
        TransferEvent.PART: TransferState.WHOLE,
        TransferEvent.ALL: TransferState.WHOLE,
        TransferEvent.AGAIN: TransferState.MOVING,
    },
    TransferState.FAILED: {},
    TransferState.FULL: {},
}


class _Window:
    """The chunks that are on their way."""

    def __init__(self, now: float) -> None:
        self.size = WINDOW_MIN
        self.asked: dict[int, float] = {}  # offset -> when
        self.heard_at = now

    def answered(self, offset: int, now: float) -> None:
        """Record an answer, and the time it took."""
        self.heard_at = now
        asked_at = self.asked.pop(offset, None)
        if asked_at is None:
            return
        if now - asked_at < QUICK_S:
            self.size = min(WINDOW_MAX, self.size + 1)
        else:
            self.size = max(WINDOW_MIN, self.size // 2)

    def is_lost(self, now: float) -> bool:
        """Return whether no answer has arrived for so long that all chunks are requested again."""
        return bool(self.asked) and now - max(self.heard_at, *self.asked.values()) > PATIENCE_S

    def begin_again(self, now: float) -> None:
        """Forget the requested chunks."""
        self.asked.clear()
        self.heard_at = now
        self.size = WINDOW_MIN


class Transfer:
    """The common part of both directions: a file, and its progress."""

    def __init__(self, name: str, now: float) -> None:
        self.name = name
        self.state = TransferState.BEGUN
        self.error = ""
        self._window = _Window(now)

    @property
    def is_whole(self) -> bool:
        """Whether all of it has arrived."""
        return self.state is TransferState.WHOLE

    def enter(self, event: TransferEvent) -> None:
        """Continue as the table says."""
        after = _NEXT[self.state]
        assert event in after, f"the transfer of {self.name} is {self.state.name} at {event.name}"
        self.state = after[event]


class Download(Transfer):
    """A file on its way to this host."""

    def __init__(self, name: str, size: int, now: float) -> None:
        """`size`: bytes that have arrived before."""
        super().__init__(name, now)
        self.size = size
        self.total: int | None = None
        self.digest = b""
        self._next = size

    def wanted(self, now: float) -> list[int]:
        """Return the offsets of the chunks to request now (TR2, TR3)."""
        window = self._window
        if window.is_lost(now):
            window.begin_again(now)
        if not window.asked:
            self._next = self.size  # else a gap
        offsets = []
        # Only the first answer shows how long the file is.
        most = 1 if self.total is None else window.size
        while len(window.asked) < most and self._next < (self.total or self._next + 1):
            window.asked[self._next] = now
            offsets.append(self._next)
            self._next += CHUNK_BYTES
        return offsets

    def take(self, chunk: Chunk, now: float) -> bytes:
        """Handle a chunk; return the data to write at the previous `size`, which may be empty (TR1)."""
        self._window.answered(chunk.offset, now)
        if self.is_whole:
            return b""  # a repetition
        changed = self.digest and chunk.digest != self.digest
        self.error = chunk.error or (f"{self.name} changes while it is copied" if changed else "")
        if self.error:
            self.enter(TransferEvent.FAIL)
            return b""
        self.total, self.digest = chunk.total, chunk.digest
        # Otherwise it is a repetition, or it would leave a gap, which is requested again in time.
        fits = chunk.offset == self.size and self.size + len(chunk.data) <= chunk.total
        data = chunk.data if fits else b""
        self.size += len(data)
        self.enter(TransferEvent.ALL if self.size == self.total else TransferEvent.PART)
        return data

    def complete(self) -> None:
        """Complete the transfer without data: a file of the same digest is here already."""
        assert self.total is not None
        self.size = self.total
        self.enter(TransferEvent.ALL)

    def begin_again(self, now: float) -> None:
        """Begin again, because the arrived data differs from what was sent."""
        self.enter(TransferEvent.AGAIN)
        self.size = self._next = 0
        self._window.begin_again(now)


class Upload(Transfer):
    """A file of this host on its way to the run's folder."""

    def __init__(self, name: str, total: int, *, sync: bool, now: float) -> None:
        super().__init__(name, now)
        self.total = total
        self.sync = sync
        self.arrived = 0
        self._next = 0

    def due(self, now: float) -> list[int]:
        """Return the offsets of the chunks to send now (TR2, TR3)."""
        window = self._window
        if window.is_lost(now):
            window.begin_again(now)
        if not window.asked:
            self._next = self.arrived
        offsets = []
        while len(window.asked) < window.size and self._next < self.total:
            window.asked[self._next] = now
            offsets.append(self._next)
            self._next += CHUNK_BYTES
        if self._next >= self.total and not window.asked:
            # an empty part: for an empty file, or to ask for the state
            window.asked[self.total] = now
            offsets.append(self.total)
        return offsets

    def hear(self, stored: Stored, now: float) -> None:
        """Record how much has arrived."""
        window = self._window
        self.error = stored.error
        self.enter(self._event_of(stored))
        for offset in [each for each in window.asked if each < stored.size]:
            window.answered(offset, now)
        if stored.size >= self.total:
            window.answered(self.total, now)
        window.heard_at = now
        if stored.size < self.arrived:  # it was lost there, or not what was sent
            self._next = stored.size
            window.begin_again(now)
        self.arrived = stored.size

    def _event_of(self, stored: Stored) -> TransferEvent:
        if stored.full:
            return TransferEvent.FULL
        if stored.error:
            return TransferEvent.FAIL
        if stored.done:
            return TransferEvent.ALL
        return TransferEvent.AGAIN if stored.size < self.arrived else TransferEvent.PART
