"""The messages that a parent sends: items of its calls, observations and checkpoints, in order.

P3  An observation is sent in the same bundle as the parent's next action, and before it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from resilient_scoop.wire import messages as wire

if TYPE_CHECKING:
    from collections.abc import Iterable

    from resilient_scoop.core.parent.once import Once

PART_ITEMS: Final = 4096
PART_BYTES: Final = 1 << 19
"""How many items, and bytes of arguments, go into one frame."""


class Outgoing:
    """The waiting messages: items and observations unencoded, everything before them as frames."""

    __slots__ = (
        "_args",
        "_args_bytes",
        "_attempt",
        "_frames",
        "_observations",
        "_once",
        "_parts",
        "_path",
        "_results",
    )  # fmt: skip

    def __init__(self, path: str, attempt: wire.Attempt, once: Once) -> None:
        self._path = path
        self._attempt = attempt
        self._once = once  # selects the observations that the broker must confirm
        self._observations: list[wire.Observation] = []
        self._parts: list[wire.Part] = []
        self._args: list[bytes] = []
        self._args_bytes = 0
        self._results: list[bytes] = []  # for items that are queued, as frames
        self._frames: list[bytes] = []

    @property
    def count(self) -> int:
        """The amount that waits to be sent, without observations."""
        return len(self._args) + len(self._parts) + len(self._frames)

    @property
    def has_observations(self) -> bool:
        """Whether observations wait to be sent."""
        return bool(self._observations)

    def queue(self, part: wire.Part, args: list[bytes], args_bytes: int) -> None:
        """Send items of a call."""
        self._parts.append(part)
        self._args += args
        self._args_bytes += args_bytes
        if len(self._args) >= PART_ITEMS or self._args_bytes >= PART_BYTES:
            self.seal()

    def bring(self, results: Iterable[bytes]) -> None:
        """Send results, as frames, after the items that were queued last."""
        self._results += results

    def tell(self, observation: wire.Observation) -> None:
        """Send an observation, before what follows (P3)."""
        self._observations.append(observation)

    def put(self, frame: bytes) -> None:
        """Send a frame after everything that the parent has done."""
        self.seal()
        self._frames.append(frame)

    def repeat(self, frames: Iterable[bytes]) -> None:
        """Send again what an ended broker may have lost."""
        self._frames += frames

    def seal(self) -> None:
        """Encode what is queued, observations first (P3)."""
        if self._observations:
            asks = self._once.asks(self._observations)
            self._frames.append(
                wire.encode(wire.Observed(self._path, self._attempt, self._observations, asks))
            )
            self._observations = []
        if self._parts:
            self._frames.append(wire.encode(wire.Calls(self._path, self._attempt, self._parts)))
            self._frames.append(wire.encode(wire.Args(self._args)))
            self._parts, self._args, self._args_bytes = [], [], 0
            self._frames += self._results
            self._results = []

    def take(self) -> list[bytes]:
        """Return what is to be sent, in order, once."""
        self.seal()
        frames, self._frames = self._frames, []
        return frames
