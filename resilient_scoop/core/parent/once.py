"""`futures.once` as a pure machine: a function that runs once, whatever it does.

N1  Its answer is one observation, behind all that the function did. Where the function has made calls
or was told something itself, the observation's kind says where it began: `once CALL NUMBER`.
N2  On a replay all of that is passed over: calls and observations keep the numbers that they had.
Where its observation is not in the history, the function had not come to its end: it runs again,
and what it asked for and was told before is found under the same numbers.
N3  A function inside of another one has another kind (`once/1`): an outer one that had not come to its
end never takes the answer of an inner one for its own.
N4  The answer is told when it is durable (`Noted`), not before: what the parent does with it in the
world is never done with another answer. A broker that ends in between is asked again.
N5  Another function than the one whose answer this is gets the answer, as by its place; it is said.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from resilient_scoop.core.parent.divergence import refuse
from resilient_scoop.core.parent.durable import jump
from resilient_scoop.wire import messages as wire

if TYPE_CHECKING:
    from collections.abc import Callable

    from resilient_scoop.core.parent.parent import Parent

KIND = "once"
_NAMED = b"N"
"""How an answer begins behind which the name of its function stands; older ones have none."""


class Once(msgspec.Struct):
    """What one attempt at a parent waits for."""

    wanted: int = -1  # the last observation that is to be durable before the parent goes on
    noted: int = -1  # all up to this one are
    sent: list[wire.Observation] = []  # with the wanted one, not noted
    watch: Callable[[Begun, bool], None] | None = None  # hears of each, and whether it was told

    @property
    def is_durable(self) -> bool:
        """Whether the wanted observation is durable."""
        return self.noted >= self.wanted

    def seal(self, parent: Parent, told: list[wire.Observation]) -> bytes:
        """Return the frame of observations, which asks for `Noted` where one of them is wanted."""
        asks = not self.is_durable and told[-1].no >= self.wanted
        if asks:
            self.sent = told
        return wire.encode(wire.Observed(parent.path, parent.attempt, told, asks))

    def ask_again(self, parent: Parent) -> list[bytes]:
        """Return what a new broker is to be asked: the answer may have ended with the old one."""
        if self.is_durable or not self.sent:
            return []
        return [wire.encode(wire.Observed(parent.path, parent.attempt, self.sent, asks=True))]

    def take(self, no: int) -> None:
        """Observations up to a number are durable."""
        self.noted = max(self.noted, no)
        if self.is_durable:
            self.sent = []


class Begun(msgspec.Struct, frozen=True):
    """Where a function begins."""

    kind: str
    call: int
    observation: int

    @property
    def whole(self) -> str:
        """The kind of its answer where it did something itself (N1)."""
        return f"{self.kind} {self.call} {self.observation}"


def begin(parent: Parent, depth: int) -> Begun:
    """Return where a function begins that stands inside of `depth` others (N3)."""
    kind = f"{KIND}/{depth}" if depth else KIND
    return Begun(kind, parent.next_call, parent.next_observation)


def is_known(parent: Parent, begun: Begun) -> bool:
    """Tell whether its answer is here, or is nowhere: the history is at its end."""
    return not parent.replaying or _find(parent, begun) is not None


def _find(parent: Parent, begun: Begun) -> wire.Observation | None:
    recorded = parent._recorded  # noqa: SLF001 - this is a part of `Parent`
    if recorded and (recorded[0].kind, recorded[0].at_call) == (begun.kind, begun.call):
        return recorded[0]
    return next((each for each in recorded if each.kind == begun.whole), None)


def recall(parent: Parent, begun: Begun, name: str) -> bytes | None:
    """Return the answer that was told before, passing over all that led to it (N2); None: run it."""
    found = _find(parent, begun)
    if parent.once.watch is not None:
        parent.once.watch(begun, found is not None)
    if found is None:
        return None
    jump(parent, found.at_call, found.no + 1, [])
    then, answer = _unpack(found.answer)
    if then not in ("", name):
        where = f"{parent.path} at call {begun.call}"
        if parent.policy.strict:
            refuse(parent, where, f"`once({then})`", f"`once({name})`")
        parent.say(f"replay: {where}: `once({name})` takes the place of `once({then})`, and gets "
                   "its value")  # fmt: skip
    return answer


def end(parent: Parent, begun: Begun, name: str, answer: bytes) -> bytes:
    """Record what a function has come to; return what is told, once `Once.is_durable` holds (N4)."""
    recorded = parent._recorded  # noqa: SLF001
    if recorded:
        first = recorded[0]
        old = (first.kind, first.at_call) == (KIND, parent.next_call) and begun.kind == KIND
        if old and first.answer[:1] != _NAMED:  # of a version that recorded no beginnings
            jump(parent, first.at_call, first.no + 1, [])
            return first.answer
        parent.recall(begun.whole)  # it asked for less than before, which is said
    itself = (begun.call, begun.observation) == (parent.next_call, parent.next_observation)
    mark = name.encode()
    packed = _NAMED + len(mark).to_bytes(2, "big") + mark + answer
    parent.once.wanted = parent.next_observation
    parent.observe(begun.kind if itself else begun.whole, packed)
    return answer


def _unpack(packed: bytes) -> tuple[str, bytes]:
    """Return the name of the function, "" where it is not known, and the answer."""
    if packed[:1] != _NAMED:
        return "", packed
    stop = 3 + int.from_bytes(packed[1:3], "big")
    return packed[3:stop].decode(), packed[stop:]
