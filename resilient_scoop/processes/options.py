"""How a run is started or resumed: set by the command line, passed to each process of the run."""

from __future__ import annotations

from typing import Final

import msgspec

GRACE_S: Final = 300.0
"""How long a hand-over may take, unless a time limit says otherwise."""
DISCARD_S_MAX: Final = 60.0
"""Seconds of computing that a resume may discard without asking."""


class Limit(msgspec.Struct, frozen=True):
    """When a run is to hand over, in time since its start, and how long it may take for that."""

    after_s: float
    grace_s: float = GRACE_S


class RunOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The user's options for starting or resuming a run."""

    workers: int  # on the run's own host
    total: int = 0  # of all hosts, as far as it was known at the start; 0: as many as `workers`
    resume: bool = False
    reuse_changed: tuple[
        str, ...
    ] = ()  # functions whose results are kept although their code changed
    recompute_changed: tuple[str, ...] = ()
    retry_failed: bool = False
    end_of_input: bool = False  # the script had read all of its standard input
    strict: bool = False
    quiet: bool = False
    detach: bool = False
    always_replay: bool = False  # a parent is dropped and replayed at every wait
    audit: bool = False  # report what parents do that is not journaled
    task_output: bool = False  # output of tasks is shown live
    limit: Limit | None = None
    grid: bool = False  # other hosts take part (`hosts.spec`)
    hosts: int = 0  # that are named, the run's own included if it computes
    in_process: bool = False  # a session: the program that opened it makes the script's calls
    listen: tuple[str, ...] = ()  # addresses on which the broker listens for them; empty: all

    @property
    def size(self) -> int:
        """The workers of all hosts, as far as it was known at the start."""
        return self.total or self.workers

    @property
    def stops_at_differences(self) -> bool:
        """Whether a replay that differs from the journal is refused."""
        return self.strict or self.always_replay

    @property
    def discard_s_max(self) -> float:
        """Seconds of computing that a replay may discard without asking; 0: any."""
        return DISCARD_S_MAX if self.resume else 0.0
