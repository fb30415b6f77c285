"""Settings of the machines, one frozen class each, with the reason for every default."""

from __future__ import annotations

from dataclasses import dataclass

from resilient_scoop.errors import UsageError


@dataclass(frozen=True, slots=True)
class BrokerConfig:
    """What the broker's machine needs to know.

    Raises:
        UsageError: two settings contradict each other.
    """

    lease_s: float = 10.0
    """Silence after which a process' work moves: ten heartbeats, so that a loaded host is not
    taken for a dead one; a death that an agent sees does not wait for it."""
    beat_s: float = 1.0
    slice_s: float = 0.1
    """Work per slice: a lost worker costs about this, and a grant costs 1/500 of it."""
    slice_s_min: float = 0.008
    """Work per slice at a batch's end: some round trips of a grant."""
    prefetch_s: float = 1.0
    """Calls shorter than this get a second one queued behind them, to hide the round trip."""
    crashes_max: int = 3
    grace_s: float = 2.0
    """How long a restarted broker waits for the workers that its agents name before it hands out
    what they may be holding."""
    args_bytes_max: int = 64 << 20
    """Arguments kept in memory; beyond it they are read back from the journal."""
    grant_bytes_max: int = 1 << 20
    page_bytes: int = 1 << 20
    """Of a parent's history in one message."""
    sweep_bytes: int = 1 << 18
    """Of a log looked at in one turn for what a checkpoint has made superfluous."""
    callables_max: int = 1000
    """Callables that travel by value and are not in use: beyond it they are forgotten (about 1 MB)."""
    adopt: bool = False
    """Whether processes of an earlier broker may still be there."""

    def __post_init__(self) -> None:
        if self.lease_s < 3 * self.beat_s:
            raise UsageError(
                f"lease of {self.lease_s} s is under three heartbeats of {self.beat_s} s; "
                "raise the lease or shorten the heartbeat"
            )
        if self.crashes_max < 1:
            raise UsageError("crashes_max must be at least 1")


@dataclass(frozen=True, slots=True)
class AgentConfig:
    """What the machine of an agent needs to know."""

    stop_grace_s: float = 3.0
    """What running items have at a stop."""
    alive_s: float = 0.5
    """How often the broker is told which processes run: several times per second of a lease, since
    one message that is late must not make a process look dead."""
    always_replay: bool = False
    """Whether an origin may ask to be started anew."""
