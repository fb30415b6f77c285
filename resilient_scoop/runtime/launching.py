"""How a run is to be started or resumed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from resilient_scoop.runtime.decisions import Decision
    from resilient_scoop.runtime.handover import Limit


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchOptions:
    """How a run is to be started or resumed."""

    workers: int
    resume: bool = False
    reuse_changed: tuple[str, ...] = ()
    recompute_changed: tuple[str, ...] = ()
    decisions: tuple[Decision, ...] = ()
    retry_failed: bool = False
    strict: bool = False
    quiet: bool = False
    display: bool = True
    always_replay: bool = False
    audit: bool = False
    limit: Limit | None = None
