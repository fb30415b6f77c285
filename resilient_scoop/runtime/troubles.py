"""What keeps a live run from going on, seen from outside: for `rscoop status` and `rscoop why`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from resilient_scoop.counts import sized
from resilient_scoop.runtime.busy import Busy, state_of
from resilient_scoop.runtime.room import free_bytes

if TYPE_CHECKING:
    from resilient_scoop.runtime.rundir import RunDir


def troubles(run: RunDir, everybody: list[Busy]) -> list[str]:
    """Return who of a run's processes is stopped, or waits for space on the disk."""
    found = [each.trouble for each in everybody if each.trouble]
    holder = run.holder()
    if holder is not None and everybody and state_of(holder.pid) in "Tt":
        found.append(
            f"the launcher (process {holder.pid}) is stopped; to let it continue: kill -CONT {holder.pid}"
        )
    if any(each.lacks_bytes for each in everybody):
        found.append(
            f"the disk is full: {sized(free_bytes(run.path))} free in {run.path}; nothing is lost, and the "
            "run continues when there is room"
        )
    return found
