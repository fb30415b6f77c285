"""One end of a link: delivers messages in order and once, over connections that may lose and repeat.

ZeroMQ loses messages in flight when a connection breaks, silently and on both sides, and repeats
nothing; our own resending causes repetitions. So messages in both directions are numbered from 1
and kept until acknowledged (go-back-N). The receiver accepts only the next number; on a gap it
requests everything after the last one that it has. Signs of life contain the last number sent, so
the loss of the last message is detected, too.

A link belongs to one epoch. When the other end is a new broker, the sender makes a new `Link` and
sends everything unacknowledged through it, after its Hello: what the old broker had committed is
then a repetition, which the machines recognize by its content (ONE-COMMIT).

`acked` of the broker's end moves only when the records of a message are durable; a worker's end
acknowledges what it has received.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

from resilient_scoop.wire.messages import BEAT, RESEND, Header, pack_header

if TYPE_CHECKING:
    from collections.abc import Sequence

_PATIENCE_S = 0.05
_PATIENCE_S_MAX = 2.0


class Link:
    """Numbers outgoing messages, filters incoming ones; holds no socket and no clock."""

    __slots__ = (
        "acked",
        "acked_sent",
        "asked_at",
        "asked_for",
        "epoch",
        "patience_s",
        "received",
        "run",
        "sent",
        "unacked",
    )  # fmt: skip

    def __init__(self, run: bytes, epoch: int) -> None:
        self.run = run
        self.epoch = epoch
        self.sent = 0
        self.received = 0
        self.acked = 0  # what we acknowledge to the other end; <= received
        self.acked_sent = 0  # the last `acked` that was sent
        self.asked_at = -1.0  # when we last requested a repetition
        self.asked_for = -1  # and the number received at that time
        self.patience_s = _PATIENCE_S
        self.unacked: OrderedDict[int, Sequence[bytes]] = OrderedDict()

    def pack(self, frames: Sequence[bytes]) -> list[bytes]:
        """Number a bundle, keep it until it is acknowledged, and return the message to send."""
        self.sent += 1
        self.unacked[self.sent] = frames
        return [self._head(0, self.sent), *frames]

    def beat(self) -> list[bytes]:
        """Return a sign of life, which also acknowledges."""
        return [self._head(BEAT, self.sent)]

    def take(self, header: Header, now: float) -> tuple[bool, list[list[bytes]]]:
        """Handle a header; return (whether its bundle must be handled, messages to send back).

        The messages are repetitions that the other end requested, or our own request.
        """
        self._settle(header.ack)
        answers: list[list[bytes]] = []
        if header.flags & RESEND:
            answers += [[self._head(0, n), *frames] for n, frames in self.unacked.items()]
        if header.flags & (BEAT | RESEND):
            wanted = header.seq > self.received
            fresh = False
        else:
            fresh = header.seq == self.received + 1
            wanted = header.seq > self.received + 1
            if fresh:
                self.received += 1
            elif not wanted:
                answers.append(self.beat())  # a repetition: send our position
        if wanted and now - self.asked_at >= self.patience_s:
            # Another request while the repetition is in transit would only add to the load.
            stuck = self.asked_for == self.received
            self.patience_s = min(2 * self.patience_s, _PATIENCE_S_MAX) if stuck else _PATIENCE_S
            self.asked_at, self.asked_for = now, self.received
            answers.append([self._head(RESEND, self.sent)])
        return fresh, answers

    def again(self) -> list[list[bytes]]:
        """Return everything not acknowledged, as messages to send once more (new connection)."""
        return [[self._head(0, n), *frames] for n, frames in self.unacked.items()]

    def pending(self) -> list[Sequence[bytes]]:
        """Return the bundles not acknowledged, oldest first."""
        return list(self.unacked.values())

    def _settle(self, ack: int) -> None:
        while self.unacked and next(iter(self.unacked)) <= ack:
            self.unacked.popitem(last=False)

    def _head(self, flags: int, seq: int) -> bytes:
        self.acked_sent = self.acked
        return pack_header(self.run, flags, self.epoch, seq, self.acked)
