"""The interface of a place: something that can start agents and report their states.

Reports of a place only explain. Whether an agent lives is known from its own connection to the
broker, so `UNKNOWN` never means gone, and no item of a run is blamed for what a place does.

A unit is what a place starts at once: an agent on one host. Its life, as a place sees it:

    WAITING     the place has accepted it and has not begun
    STARTING    a login, a queue's start, the import of our package
    RUNNING     the agent has said that it runs
    GONE        it ran, and has ended
    NEVER_CAME  it ended before it ran; `Seen.log` holds the last lines that it wrote
    UNKNOWN     the place cannot tell now

A tag is drawn before `start` and written down first, so that a launcher that dies between the two
finds its units again (`find`). Calls of a place may block for seconds; each has a deadline of its own.
One of `start`, `look` and `find` is called at a time; `stop` may be called while another of them blocks.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Protocol

import msgspec

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class UnitState(Enum):
    """The states of a unit, as its place sees them."""

    WAITING = "waiting"
    STARTING = "starting"
    RUNNING = "running"
    GONE = "gone"
    NEVER_CAME = "never came"
    UNKNOWN = "unknown"


class Unit(msgspec.Struct, frozen=True):
    """One agent that a place was asked to start; plain text, so that it can be written to a file."""

    tag: str  # the tag under which it was started
    id: str  # the place's own name for it, never used twice
    host: str  # the host's name in the run, if the place knows it; else empty


class Seen(msgspec.Struct, frozen=True):
    """The report of a place about a unit."""

    state: UnitState
    why: str = ""  # a sentence for the user, with the cure, if something is wrong
    log: str = ""  # the last lines that the unit wrote before it failed
    until_s: float | None = None  # seconds until its time limit, if it has one
    lasting: bool = False  # the cause of its end can be changed only by the user


class Place(Protocol):
    """Somewhere that can start agents.

    All methods may raise `errors.PlaceRefusedError` (another try is of no use until the user has changed
    something) and `errors.PlaceBusyError` (try again later).
    """

    name: str

    def start(self, n: int, ticket: bytes, *, tag: str) -> Sequence[Unit]:
        """Start `n` agents and return at once, before they run.

        Idempotent by `tag`: if units of this tag exist, they are returned and no other is started.
        `ticket` is one line of JSON text, secret, which each agent gets on its standard input or in a
        file of mode 0600; it is in no command line and in no environment.
        """

    def look(self, units: Sequence[Unit]) -> Mapping[Unit, Seen]:
        """Return the states of units; every one of them is in the answer."""

    def stop(self, units: Sequence[Unit], *, grace_s: float) -> None:
        """End units: normally within the time, then by kill. Unknown and ended units are no error."""

    def renew(self, ticket: bytes) -> None:
        """Give a new ticket to the live agents that this process has started: keys were renewed."""

    def find(self, tag: str) -> Sequence[Unit]:
        """Return the units of a tag that still exist, those of a launcher that has died included."""

    def dry_run(self, n: int) -> str:
        """Return what `start` would do, as the commands that a user could type."""

    def close(self) -> None:
        """Close connections; agents continue."""
