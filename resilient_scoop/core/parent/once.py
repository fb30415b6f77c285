"""`futures.once` as a pure machine: a function that runs once, whatever it does.

ON1  The answer is one observation. It is recorded after everything that the function did. If the function
made calls or got answers itself, the kind of the observation says where it began: `once CALL NUMBER`.
ON2  A replay skips all of that; calls and observations keep their numbers. If the observation is missing
in the history, the function had not ended: it runs again, and finds its earlier calls and answers under
the same numbers.
ON3  A function inside another one has a kind of its own (`once/1`): an outer function that had not ended
never takes the answer of an inner one for its own.
ON4  The answer is returned when it is durable (`Noted`), not before: so the parent never acts on an answer
that a replay would not find. If the broker ends in between, the new broker is asked again.
ON5  If another function is at the place of an answer, it gets that answer; this is reported. So is the
same function if its own code or its arguments differ, as far as its label tells.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import msgspec

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Callable

    from resilient_scoop.wire import messages as wire

KIND = "once"
_NAMED = b"N"
"""How an answer begins that has the name of its function in it; older ones have none."""


class Begun(msgspec.Struct, frozen=True):
    """The start of a function."""

    kind: str
    call: int
    observation: int

    @property
    def whole(self) -> str:
        """The kind of its answer where it did something itself (ON1)."""
        return f"{self.kind} {self.call} {self.observation}"


def begin(depth: int, at_call: int, at_observation: int) -> Begun:
    """Return the beginning of a function that is inside `depth` others (ON3)."""
    return Begun(f"{KIND}/{depth}" if depth else KIND, at_call, at_observation)


def find(recorded: deque[wire.Observation], begun: Begun) -> wire.Observation | None:
    """Return the recorded answer, wherever its function ended (ON2)."""
    if recorded and (recorded[0].kind, recorded[0].at_call) == (begun.kind, begun.call):
        return recorded[0]
    return next((each for each in recorded if each.kind == begun.whole), None)


def is_unnamed(first: wire.Observation, begun: Begun, at_call: int) -> bool:
    """Return whether an answer is of a version that recorded neither beginnings nor names."""
    return (first.kind, first.at_call, begun.kind) == (KIND, at_call, KIND) and (
        first.answer[:1] != _NAMED
    )


class Label(NamedTuple):
    """What an answer says about its function; older ones have no digest, or no name either."""

    name: str
    digest: str = ""  # of its own code and its arguments

    def may_be(self, then: Label) -> bool:
        """Return whether an answer with the label `then` can be of this function."""
        known = self.digest and then.digest
        return then.name in ("", self.name) and not (known and self.digest != then.digest)


def pack(label: Label, answer: bytes) -> bytes:
    """Return an answer with the label of its function."""
    mark = "\0".join(label).encode()
    return _NAMED + len(mark).to_bytes(2, "big") + mark + answer


def unpack(packed: bytes) -> tuple[Label, bytes]:
    """Return the label of the function, without a name where it is not known, and the answer."""
    if packed[:1] != _NAMED:
        return Label(""), packed
    stop = 3 + int.from_bytes(packed[1:3], "big")
    name, _, digest = packed[3:stop].decode().partition("\0")
    return Label(name, digest), packed[stop:]


class Once(msgspec.Struct):
    """The answers for which one attempt of a parent waits, until they are durable (ON4)."""

    wanted: int = -1  # the last observation that is to be durable before the parent continues
    noted: int = -1  # all up to this one are durable
    sent: list[wire.Observation] = []  # observations up to the wanted one, not yet durable
    watch: Callable[[Begun, bool], None] | None = (
        None  # gets each answer, and whether it was recorded
    )

    @property
    def is_durable(self) -> bool:
        """Whether the wanted observation is durable."""
        return self.noted >= self.wanted

    def asks(self, observations: list[wire.Observation]) -> bool:
        """Return whether `Noted` is requested with these observations: the wanted one is among them."""
        asks = not self.is_durable and observations[-1].no >= self.wanted
        if asks:
            self.sent = observations
        return asks

    def to_ask_again(self) -> list[wire.Observation]:
        """Return what a new broker is to be asked: the answer may have ended with the old one."""
        return [] if self.is_durable else self.sent

    def take(self, no: int) -> None:
        """Record that observations up to a number are durable."""
        self.noted = max(self.noted, no)
        if self.is_durable:
            self.sent = []
