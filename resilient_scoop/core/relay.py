"""Copies of messages that the agent of another host keeps, and sends for processes that have ended.

Messages of a worker pass its agent, which keeps a copy until the broker acknowledges them. A worker that
lives sends them again itself (`core.link`). For one that has ended its agent does, over the same link or,
to a new broker, over a new one: what the worker had finished is not computed again. One bundle of frames is
one copy, in memory or, beyond a limit, in a file.

A process has a line (`_NEXT`), from its start until nothing of it is kept:

    state    ENDED    SETTLED  ACKNOWLEDGED  GIVEN_UP
    OPEN     CLOSING  -        -             -
    CLOSING  -        SENDING  -             DONE
    SENDING  -        -        DONE          DONE
    DONE     -        -        -             -

ENDED is the end of the process; SETTLED is `SETTLE_S` later, when its last messages have arrived here;
ACKNOWLEDGED is the acknowledgement of the last of them; GIVEN_UP: the broker does not want them.

  RL1  What is kept of a process is what it has sent without a gap, from the first message on that is not
       acknowledged. With the first message to a new broker, which repeats what the earlier one had not
       acknowledged, all copies of before are dropped.
  RL2  Copies take at most `memory_bytes_max` of memory and `disk_bytes_max` of files. A message without
       space is not kept: its process has it as long as it lives. The user is told once, until there is
       room again.
  RL3  Of a process that has ended only what it had finished is sent: outcomes, constants, progress.
       Nothing else of it may count any more: its futures have ended with it.
  RL4  Nothing is sent for a process that has ended before the broker knows that it has, and so gives it
       nothing; and its end is reported when all of that is acknowledged.
  RL5  A bundle that is not complete in its file is not sent; its items are computed again.
  RL6  At most `WINDOW_BYTES` of a process, or one bundle, are on their way: signs of life do not wait.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from enum import Enum, auto
from itertools import takewhile
from math import inf
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

import msgspec

from resilient_scoop.wire import messages as wire

if TYPE_CHECKING:
    from collections.abc import Container, Sequence

    from resilient_scoop.ids import PeerId

SETTLE_S: Final = 0.05
"""How long after the end of a process its last messages may arrive: they pass two sockets."""
PATIENCE_S: Final = 0.5
PATIENCE_S_MAX: Final = 8.0
WINDOW_BYTES: Final = 1 << 20
_COUNTS: Final = wire.Outcomes | wire.Progress | wire.Const


class RelayConfig(msgspec.Struct, frozen=True):
    """The limits of what is kept."""

    memory_bytes_max: int = 64 << 20
    disk_bytes_max: int = 4 << 30


class BundleStore(Protocol):
    """The files of bundles."""

    def write(self, frames: Sequence[bytes]) -> int | None:
        """Write a bundle to a file of its own; return its number, or None if the disk has no space."""

    def read(self, number: int) -> list[bytes] | None:
        """Return a bundle, or None if it is not what was written."""

    def remove(self, number: int) -> None:
        """Remove a file."""


class LineState(Enum):
    """The states of the line of a process."""

    OPEN = auto()
    CLOSING = auto()
    SENDING = auto()
    DONE = auto()


class LineEvent(Enum):
    """The events of a line."""

    ENDED = auto()
    SETTLED = auto()
    ACKNOWLEDGED = auto()
    GIVEN_UP = auto()


_NEXT: Final[dict[LineState, dict[LineEvent, LineState]]] = {
    LineState.OPEN: {LineEvent.ENDED: LineState.CLOSING},
    LineState.CLOSING: {LineEvent.SETTLED: LineState.SENDING, LineEvent.GIVEN_UP: LineState.DONE},
    LineState.SENDING: {LineEvent.ACKNOWLEDGED: LineState.DONE, LineEvent.GIVEN_UP: LineState.DONE},
    LineState.DONE: {},
}


class _Left(NamedTuple):
    """What an ended process leaves in a bundle: items with an outcome there, and other frames."""

    held: list[wire.Held]
    more: list[bytes]


@dataclass(slots=True, eq=False)
class _Copy:
    """One bundle."""

    no: int
    size: int
    frames: Sequence[bytes] | None  # None: in the file
    file: int = 0
    left: _Left | None = None  # known when it is written to a file, or its process has ended


@dataclass(slots=True, eq=False)
class Line:
    """The kept messages of one process."""

    peer: PeerId
    name: str = ""
    state: LineState = LineState.OPEN
    epoch: int = 0
    acked: int = 0
    last: int = 0  # the number of the last copy, or the last that is acknowledged
    copies: deque[_Copy] = field(default_factory=deque)
    settled_at: float = inf
    more: list[bytes] | None = None  # sent with the first message to a new broker; None: not needed
    sent: int = 0  # the number of the last that was sent for it
    sent_at: float = -inf
    patience_s: float = PATIENCE_S

    def enter(self, happening: LineEvent) -> None:
        """Continue as the table says."""
        after = _NEXT[self.state]
        assert happening in after, f"{self.name} is {self.state.name} at {happening.name}"
        self.state = after[happening]

    @property
    def again_at(self) -> float:
        """Time at which unacknowledged bundles are sent again."""
        return self.sent_at + self.patience_s

    @property
    def is_greeting(self) -> bool:
        """Whether its first message to a new broker is not acknowledged yet."""
        return self.more is not None and self.acked == 0

    @property
    def is_acknowledged(self) -> bool:
        """Whether nothing of it is left to send."""
        return not self.copies and not self.is_greeting


class Relay:
    """The copies of one host."""

    def __init__(self, run: bytes, node: str, config: RelayConfig, store: BundleStore) -> None:
        self.run = run
        self.node = node
        self.config = config
        self.store = store
        self.epoch = 0
        self.lines: dict[PeerId, Line] = {}
        self.memory_bytes = 0
        self.disk_bytes = 0
        self.is_full = False
        self.torn = 0  # bundles that were not whole in their files

    def open(self, peer: PeerId) -> None:
        """Begin a line for a process that has started."""
        self.lines[peer] = Line(peer)

    def up(self, peer: PeerId, message: Sequence[bytes]) -> None:
        """Keep a message of a process that passes (RL1)."""
        line = self.lines.get(peer)
        if line is None or line.state is LineState.SENDING:
            return
        try:
            header = wire.unpack_header(message[0])
        except (ValueError, IndexError):
            return
        if header.flags:
            return
        if header.epoch > line.epoch and header.seq == 1:
            self._drop(line, inf)
            line.epoch, line.acked, line.last = header.epoch, 0, 0
        if header.epoch == line.epoch and header.seq == line.last + 1:
            self._keep(line, header.seq, message[1:])

    def down(self, peer: PeerId, header: wire.Header) -> bool:
        """Handle a message for a process; return whether the process can still receive it."""
        line = self.lines.get(peer)
        if line is None:
            return True
        if header.epoch == line.epoch:
            self._acknowledged(line, header.ack)
            if header.flags & wire.RESEND and line.state is LineState.SENDING:
                line.sent = line.acked
        return line.state is LineState.OPEN

    def _acknowledged(self, line: Line, ack: int) -> None:
        if ack <= line.acked:
            return
        line.acked, line.last, line.sent = ack, max(line.last, ack), max(line.sent, ack)
        line.patience_s = PATIENCE_S
        self._drop(line, ack)

    def _keep(self, line: Line, no: int, frames: Sequence[bytes]) -> None:
        """Keep a bundle in memory, in a file, or not at all (RL2)."""
        size = sum(map(len, frames))
        if self.memory_bytes + size <= self.config.memory_bytes_max:
            self.memory_bytes += size
            line.copies.append(_Copy(no, size, frames))
            line.last = no
            return
        file = None
        if self.disk_bytes + size <= self.config.disk_bytes_max:
            file = self.store.write(frames)
        if file is None:
            self.is_full = True
            return
        self.disk_bytes += size
        line.copies.append(_Copy(no, size, None, file, _left(frames)))
        line.last = no

    def _drop(self, line: Line, upto: float) -> None:
        """Drop copies that are not needed any more."""
        while line.copies and line.copies[0].no <= upto:
            self._forget(line.copies.popleft())
        if not self.memory_bytes and not self.disk_bytes:
            self.is_full = False

    def _forget(self, copy: _Copy) -> None:
        if copy.frames is None:
            self.disk_bytes -= copy.size
            self.store.remove(copy.file)
        else:
            self.memory_bytes -= copy.size

    def _frames(self, copy: _Copy) -> Sequence[bytes]:
        """Return a bundle; nothing if its file is not whole (RL5)."""
        if copy.frames is not None:
            return copy.frames
        frames = self.store.read(copy.file)
        if frames is None:
            self.torn += 1
            return ()
        return frames

    def ended(self, peer: PeerId, name: str, now: float) -> None:
        """Handle the end of a process."""
        line = self.lines[peer]
        line.name, line.settled_at = name, now + SETTLE_S
        line.enter(LineEvent.ENDED)

    @property
    def unreported(self) -> list[PeerId]:
        """Processes that have ended, and whose end must not be reported yet (RL4)."""
        return [line.peer for line in self.lines.values() if line.state is not LineState.OPEN]

    def meet(self, epoch: int) -> None:
        """Handle a new broker."""
        self.epoch = epoch
        for line in self.lines.values():
            if line.state is LineState.SENDING and line.epoch < epoch:
                self._begin_again(line)

    def hurry(self) -> None:
        """Consider unacknowledged bundles lost: the broker or the connection was down."""
        for line in self.lines.values():
            if line.state is LineState.SENDING:
                line.sent, line.patience_s = line.acked, PATIENCE_S

    def give_up(self, peer: PeerId) -> None:
        """Drop the line of an ended process whose results the broker does not want."""
        line = self.lines.get(peer)
        if line is not None and line.state is not LineState.OPEN:
            self._drop(line, inf)
            line.enter(LineEvent.GIVEN_UP)

    def take_done(self, now: float) -> list[PeerId]:
        """Return, once, the processes whose ends may be reported (RL4)."""
        for line in self.lines.values():
            if line.state is LineState.CLOSING and now >= line.settled_at:
                self._settle(line, now)
            if line.state is LineState.SENDING and line.is_acknowledged:
                line.enter(LineEvent.ACKNOWLEDGED)
        over = [peer for peer, line in self.lines.items() if line.state is LineState.DONE]
        for peer in over:
            del self.lines[peer]
        return over

    def _settle(self, line: Line, now: float) -> None:
        line.enter(LineEvent.SETTLED)
        for copy in line.copies:
            if copy.left is None:
                assert copy.frames is not None, "RL3"
                copy.left = _left(copy.frames)
        line.sent, line.sent_at = line.last, now  # by itself
        if line.epoch < self.epoch:  # otherwise the process has met that broker itself
            self._begin_again(line)

    def _begin_again(self, line: Line) -> None:
        """Make the line for a new broker: a greeting that announces the results, then the results."""
        more = [] if line.more is None or line.acked else line.more
        copies = deque[_Copy]()
        for copy in line.copies:
            assert copy.left is not None, "RL3"
            more += copy.left.more
            if copy.left.held:
                copies.append(copy)
            else:
                self._forget(copy)
        for no, copy in enumerate(copies, 2):
            copy.no, copy.left = no, _Left(copy.left.held if copy.left else [], [])
        line.copies, line.more = copies, _newest(more)
        line.epoch, line.acked, line.last, line.sent = self.epoch, 0, len(copies) + 1, 0
        line.patience_s = PATIENCE_S
        if not copies and not line.more:
            line.more = None

    def due(self, now: float, known: Container[PeerId]) -> list[tuple[PeerId, list[bytes]]]:
        """Return what to send now; `known`: processes of which the broker knows that they have ended."""
        found: list[tuple[PeerId, list[bytes]]] = []
        for line in self.lines.values():
            if line.state is LineState.SENDING and line.peer in known:
                found += ((line.peer, message) for message in self._due(line, now))
        return found

    def _due(self, line: Line, now: float) -> list[list[bytes]]:
        if line.sent > line.acked and now >= line.again_at:
            line.sent = line.acked
            line.patience_s = min(2 * line.patience_s, PATIENCE_S_MAX)
        found = []
        if line.is_greeting and line.sent == 0:
            line.sent = 1
            found.append(self._message(line, 1, self._greeting(line)))
        first = line.copies[0].no if line.copies else 0
        on_the_way = sum(c.size for c in takewhile(lambda each: each.no <= line.sent, line.copies))
        while line.copies and line.sent - first + 1 < len(line.copies):
            copy = line.copies[max(0, line.sent - first + 1)]
            if on_the_way and on_the_way + copy.size > WINDOW_BYTES:
                break  # RL6
            on_the_way += copy.size
            line.sent = copy.no
            frames = _counting(self._frames(copy), owned=line.more is None)
            found.append(self._message(line, copy.no, frames))
        if found:
            line.sent_at = now
        return found

    def _message(self, line: Line, no: int, frames: Sequence[bytes]) -> list[bytes]:
        return [wire.pack_header(self.run, 0, line.epoch, no, 0), *frames]

    def _greeting(self, line: Line) -> list[bytes]:
        held = [each for copy in line.copies if copy.left for each in copy.left.held]
        hello = wire.Hello("worker", self.node, line.name, 0, _joined(held))
        return [wire.encode(hello), *(line.more or ())]

    def deadline(self, known: Container[PeerId]) -> float:
        """Return the time of the next action, if no message arrives."""
        due = inf
        for line in self.lines.values():
            if line.state is LineState.CLOSING:
                due = min(due, line.settled_at)
            elif line.state is LineState.SENDING and line.peer in known:
                due = min(due, line.again_at)
        return due

    def check(self) -> None:
        """Raise AssertionError if an invariant does not hold."""
        copies = [copy for line in self.lines.values() for copy in line.copies]
        memory = sum(copy.size for copy in copies if copy.frames is not None)
        disk = sum(copy.size for copy in copies if copy.frames is None)
        assert (memory, disk) == (self.memory_bytes, self.disk_bytes), "RL2"
        assert memory <= self.config.memory_bytes_max, "RL2"
        assert disk <= self.config.disk_bytes_max, "RL2"
        for line in self.lines.values():
            numbers = [copy.no for copy in line.copies]
            assert numbers == list(range(line.last - len(numbers) + 1, line.last + 1)), "RL1"
            assert not numbers or numbers[0] > line.acked, "RL1"
            assert line.state is not LineState.DONE or not line.copies, "RL4"


def _decoded(frame: bytes) -> wire.Up | None:
    try:
        return wire.decode_up(frame)
    except msgspec.MsgspecError:
        return None


def _left(frames: Sequence[bytes]) -> _Left:
    """Return what an ended process leaves in a bundle, for a broker that did not know the process."""
    held, more = list[wire.Held](), list[bytes]()
    for frame in frames:
        message = _decoded(frame)
        if isinstance(message, wire.Outcomes):
            held += (
                wire.Held(
                    each.task, message.parent, each.call, each.fingerprint,
                    [(each.start, each.start + len(each.values))], each.digests,
                )
                for each in message.items
                if each.task is not None
            )  # fmt: skip
        elif isinstance(message, wire.Progress | wire.Const):
            more.append(frame)
    return _Left(held, more)


def _counting(frames: Sequence[bytes], *, owned: bool) -> list[bytes]:
    """Return the frames of an ended process that still count (RL3).

    `owned`: its broker is the one that it had; a new one does not know what its futures were.
    """
    found = []
    for frame in frames:
        message = _decoded(frame)
        if owned and isinstance(message, wire.Hello):
            found.append(frame)  # it names what earlier brokers had not acknowledged
        if not isinstance(message, _COUNTS):
            continue
        if owned:
            found.append(frame)
        elif isinstance(message, wire.Outcomes):
            items = [each for each in message.items if each.task is not None]
            if len(items) == len(message.items):
                found.append(frame)
            elif items:
                found.append(wire.encode(wire.Outcomes(message.parent, items)))
    return found


def _newest(frames: Sequence[bytes]) -> list[bytes]:
    """Return constants, and of each item its last progress."""
    newest: dict[object, bytes] = {}
    for frame in frames:
        message = _decoded(frame)
        if isinstance(message, wire.Progress):
            newest[message.parent, message.call, message.index] = frame
        else:
            newest[frame] = frame
    return list(newest.values())


def _joined(held: Sequence[wire.Held]) -> list[wire.Held]:
    """Return one entry for each attempt, batch and function."""
    found: dict[tuple[wire.Attempt, str, int, bytes], dict[tuple[int, int], bytes]] = {}
    for each in held:
        key = (each.attempt, each.parent, each.call, each.fn)
        found.setdefault(key, {}).setdefault(each.spans[0], each.digests)
    return [wire.Held(*key, list(of), b"".join(of.values())) for key, of in found.items()]
