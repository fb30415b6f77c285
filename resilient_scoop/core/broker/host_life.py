"""The life of another host, and what the broker knows of it.

The life of a host (`_NEXT`), by what happens to it:

    state        HEARD        SILENT       FLAPS        SERVED  DRAIN     LEFT     REVOKE   ENROLL
    UNKNOWN      UP           UNKNOWN      -            -       DRAINED   UNKNOWN  REVOKED  UNKNOWN
    UP           UP           LOST         -            -       DRAINING  UNKNOWN  REVOKED  UP
    DRAINING     DRAINING     DRAINED      -            -       DRAINING  DRAINED  REVOKED  UP
    DRAINED      DRAINING     DRAINED      -            -       DRAINED   DRAINED  REVOKED  UNKNOWN
    LOST         UP           LOST         QUARANTINED  -       DRAINED   UNKNOWN  REVOKED  LOST
    QUARANTINED  (same)       (same)       -            LOST    DRAINING  (same)   REVOKED  (same)
    REVOKED      REVOKED      REVOKED      -            -       REVOKED   REVOKED  REVOKED  UNKNOWN

HEARD is a message of its agent; SILENT the time without any message of the host, or without an answer of
it, or the death of its agent, which the host has seen; FLAPS a loss too many in too short a time; SERVED
the end of a quarantine (a host that is there is heard, and UP); LEFT the end of an agent in order; ENROLL a
new key: a host that was cut off or drained may come again, and what was counted for a quarantine stays.

What is not listed is an error.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from enum import Enum, auto
from math import inf
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from resilient_scoop.core.broker.leases import Peer
    from resilient_scoop.ids import PeerId


class HostState(Enum):
    """The states of a host; the value is shown to users."""

    UNKNOWN = "unknown"  # it has sent nothing yet, or it has left normally
    UP = "up"
    DRAINING = "draining"
    DRAINED = "drained"
    LOST = "lost"
    QUARANTINED = "quarantined"
    REVOKED = "revoked"


class HostEvent(Enum):
    """The events of a host."""

    HEARD = auto()
    SILENT = auto()
    FLAPS = auto()
    SERVED = auto()
    DRAIN = auto()
    LEFT = auto()
    REVOKE = auto()
    ENROLL = auto()


_NEXT: Final[dict[HostState, dict[HostEvent, HostState]]] = {
    HostState.UNKNOWN: {
        HostEvent.HEARD: HostState.UP,
        HostEvent.SILENT: HostState.UNKNOWN,
        HostEvent.DRAIN: HostState.DRAINED,
        HostEvent.LEFT: HostState.UNKNOWN,
        HostEvent.REVOKE: HostState.REVOKED,
        HostEvent.ENROLL: HostState.UNKNOWN,
    },
    HostState.UP: {
        HostEvent.HEARD: HostState.UP,
        HostEvent.SILENT: HostState.LOST,
        HostEvent.DRAIN: HostState.DRAINING,
        HostEvent.LEFT: HostState.UNKNOWN,
        HostEvent.REVOKE: HostState.REVOKED,
        HostEvent.ENROLL: HostState.UP,
    },
    HostState.DRAINING: {
        HostEvent.HEARD: HostState.DRAINING,
        HostEvent.SILENT: HostState.DRAINED,
        HostEvent.DRAIN: HostState.DRAINING,
        HostEvent.LEFT: HostState.DRAINED,
        HostEvent.REVOKE: HostState.REVOKED,
        HostEvent.ENROLL: HostState.UP,
    },
    HostState.DRAINED: {
        HostEvent.HEARD: HostState.DRAINING,  # told to end again
        HostEvent.SILENT: HostState.DRAINED,
        HostEvent.DRAIN: HostState.DRAINED,
        HostEvent.LEFT: HostState.DRAINED,
        HostEvent.REVOKE: HostState.REVOKED,
        HostEvent.ENROLL: HostState.UNKNOWN,
    },
    HostState.LOST: {
        HostEvent.HEARD: HostState.UP,
        HostEvent.SILENT: HostState.LOST,
        HostEvent.FLAPS: HostState.QUARANTINED,
        HostEvent.DRAIN: HostState.DRAINED,
        HostEvent.LEFT: HostState.UNKNOWN,
        HostEvent.REVOKE: HostState.REVOKED,
        HostEvent.ENROLL: HostState.LOST,
    },
    HostState.QUARANTINED: {
        HostEvent.HEARD: HostState.QUARANTINED,
        HostEvent.SILENT: HostState.QUARANTINED,
        HostEvent.SERVED: HostState.LOST,
        HostEvent.DRAIN: HostState.DRAINING,
        HostEvent.LEFT: HostState.QUARANTINED,
        HostEvent.REVOKE: HostState.REVOKED,
        HostEvent.ENROLL: HostState.QUARANTINED,
    },
    HostState.REVOKED: {
        HostEvent.HEARD: HostState.REVOKED,
        HostEvent.SILENT: HostState.REVOKED,
        HostEvent.DRAIN: HostState.REVOKED,
        HostEvent.LEFT: HostState.REVOKED,
        HostEvent.REVOKE: HostState.REVOKED,
        HostEvent.ENROLL: HostState.UNKNOWN,
    },
}


@dataclass(slots=True, eq=False)
class KnownHost:
    """One other host, in one epoch of the broker."""

    name: str
    state: HostState = HostState.UNKNOWN
    why: str = ""  # time since which it is not UP
    peers: dict[PeerId, Peer] = field(default_factory=dict)  # its connected agent and workers
    # all identities that it uses, including silent ones
    identities: set[PeerId] = field(default_factory=set)
    # Ended processes whose finished results their agent still sends.
    ended: frozenset[PeerId] = frozenset()
    heard_at: float = 0.0  # last message of any of its processes
    vouched_at: float = 0.0  # when its agent last said which workers run
    lost_at: list[float] = field(default_factory=list)  # its losses within `FLAPS_S`
    sentences: int = 0  # consecutive quarantines
    free_at: float = inf  # end of the quarantine
    empty_by: float = inf  # deadline of the drain
    end_sent_at: float | None = None  # when its processes were told to end
    lies: int = 0
    lost_items: int = 0  # items of it that ran again
    done: int = 0  # items that it has reported
    counts: deque[tuple[float, int]] = field(default_factory=lambda: deque(maxlen=12))
    pinged: PeerId | None = None  # the agent that gets pings: the latest one
    pings: deque[tuple[int, float]] = field(
        default_factory=deque
    )  # unanswered pings: number, and time of sending
    rtt_s: float = 0.0  # round-trip time of a ping; 0: not measured
    is_unresponsive: bool = False  # it was lost because it did not answer

    @property
    def agent(self) -> Peer | None:
        """Its agent, if it is connected."""
        return next((peer for peer in self.peers.values() if peer.role == "agent"), None)

    def enter(self, happening: HostEvent) -> None:
        """Continue as the table says."""
        after = _NEXT[self.state]
        assert happening in after, f"host {self.name} is {self.state.name} at {happening.name}"
        self.state = after[happening]
