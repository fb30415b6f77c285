"""The callables that one process knows, and which of them it has announced to the broker.

`core.broker.callable_eviction` (CE1) explains why they are forgotten, and what a process must send then.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from resilient_scoop.wire import messages as wire

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet


class Callables:
    """The callables that a process knows, and which of them it has announced."""

    __slots__ = ("announced", "known")

    def __init__(self) -> None:
        self.known: dict[bytes, wire.Define] = {}
        self.announced: dict[
            bytes, None
        ] = {}  # those that this process has announced to the broker

    def announcements(self) -> list[bytes]:
        """Return the definitions of all callables that this process has announced (CE1)."""
        return [wire.encode(self.known[fn]) for fn in self.announced]

    def forget(self, calling: AbstractSet[bytes], used: AbstractSet[bytes]) -> None:
        """Forget unused callables, and keep only called ones as announced."""
        self.announced = {fn: None for fn in self.announced if fn in calling}
        self.known = {fn: define for fn, define in self.known.items() if fn in used}
