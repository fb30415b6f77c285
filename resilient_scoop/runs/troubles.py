"""What blocks a live run, observed from outside: for `rscoop status` and `rscoop why`."""

from __future__ import annotations

import resource
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from resilient_scoop.adapters.free_space import free_bytes, free_text
from resilient_scoop.counts import sized
from resilient_scoop.runs.executing import ExecutingProcess, state_of
from resilient_scoop.runs.hosts import (
    host_rows,
    none_left,
    read_hosts,
    read_live_hosts,
    read_missing,
)

if TYPE_CHECKING:
    from resilient_scoop.runs.folder import RunDir


_WITHOUT_WORK: Final = ("origin", "broker", "agent")


def troubles(run: RunDir, everybody: list[ExecutingProcess]) -> list[str]:
    """Return which processes of a run are stopped or wait for disk space, and which hosts are missing."""
    found = [each.trouble for each in everybody if each.trouble]
    holder = run.holder()
    if holder is not None and everybody and state_of(holder.pid) in "Tt":
        found.append(
            f"the launcher (process {holder.pid}) is stopped; to let it continue: kill -CONT {holder.pid}"
        )
    found += [f"host {each.name} is missing: {each.why}" for each in read_missing(run.path)]
    if alone := _no_host_left(run, everybody):
        found.append(alone)
    waiting = [each for each in everybody if each.needed_bytes]
    if not waiting:
        return found
    free = free_bytes(run.path)
    limit = min(map(_file_limit, waiting))
    if limit < free:
        found.append(
            f"no file of the run may be larger than {sized(limit)} (`ulimit -f`): stop the run, raise the "
            "limit, then resume; nothing is lost"
        )
    else:
        found.append(
            f"the disk is full: {free_text(run.path)} in {run.path}; nothing is lost, and the run "
            "continues when there is room"
        )
    return found


def _no_host_left(run: RunDir, everybody: list[ExecutingProcess]) -> str:
    """Return a text if no worker is here, and every other host was drained or revoked."""
    if any(each.name not in _WITHOUT_WORK for each in everybody):
        return ""
    started = read_hosts(run.path)
    if started is None:
        return ""  # a run of this host, or one that has just begun
    rows = host_rows(started, read_live_hosts(run.path), time.time())  # noqa: TID251 - for display
    states = {row.name: row.state for row in rows}
    return none_left(run.id, [host.name for host in started.hosts], states)


def _file_limit(process: ExecutingProcess) -> int:
    """Return the limit on the size of its files."""
    with suppress(OSError):  # it has ended, or belongs to another user
        limit = resource.prlimit(process.pid, resource.RLIMIT_FSIZE)[0]
        return sys.maxsize if limit == resource.RLIM_INFINITY else limit
    return sys.maxsize
