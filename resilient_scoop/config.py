"""Settings of the machines, one frozen class each, with the reason for every default."""

from __future__ import annotations

from dataclasses import dataclass

from resilient_scoop.errors import UsageError


@dataclass(frozen=True, slots=True)
class BrokerConfig:
    """Settings of the broker's machine.

    Raises:
        UsageError: two settings contradict each other.
    """

    lease_s: float = 10.0
    """Silence after which the work of a process is assigned to others: ten heartbeats, so that a
    loaded host does not count as dead; a death that an agent sees does not wait for it."""
    heartbeat_timeout_s: float = 10.0
    """Silence of another host after which it is lost, with all its processes. As a lease: its workers
    are vouched for by its agent."""
    beat_s: float = 1.0
    slice_s: float = 0.1
    """Work per slice: a lost worker costs about this, and a grant costs 1/500 of it."""
    slice_s_min: float = 0.008
    """Work per slice at the end of a batch: some round trips of a grant."""
    prefetch_s: float = 1.0
    """For calls shorter than this, a second slice is queued, to hide the round trip."""
    crashes_max: int = 3
    grace_s: float = 2.0
    """How long a restarted broker waits for the workers that its agents name before it assigns
    items that they may hold."""
    args_bytes_max: int = 64 << 20
    """Arguments kept in memory; beyond it they are read back from the journal."""
    grant_bytes_max: int = 1 << 20
    page_bytes: int = 1 << 20
    """Bytes of a parent's history in one message."""
    sweep_bytes: int = 1 << 18
    """Log bytes scanned per turn for records that a checkpoint made obsolete."""
    callables_max: int = 1000
    """Limit of unused callables that were sent by value; more are forgotten (about 1 MB)."""
    adopt: bool = False
    """Whether processes of an earlier broker may still be alive."""

    def __post_init__(self) -> None:
        if self.lease_s < 3 * self.beat_s:
            raise UsageError(
                f"lease of {self.lease_s} s is under three heartbeats of {self.beat_s} s; "
                "raise the lease or shorten the heartbeat"
            )
        if self.crashes_max < 1:
            raise UsageError("crashes_max must be at least 1")
