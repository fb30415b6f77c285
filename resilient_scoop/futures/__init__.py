"""Futures: run functions on the workers of the run, from the script or from tasks, at any depth.

Names and meanings are those of SCOOP and `concurrent.futures`. Every future has an identity that
depends only on the order of its parent's calls, so that a restarted parent finds its results.
"""

from __future__ import annotations

from resilient_scoop.futures._api import (
    map,
    map_as_completed,
    once,
    options,
    rng,
    shutdown,
    submit,
    task,
)
from resilient_scoop.futures._future import Future
from resilient_scoop.futures._progress import TaskInfo, progress, task_info
from resilient_scoop.futures._reduce import map_reduce, map_scan, mapReduce, mapScan
from resilient_scoop.futures._waits import (
    ALL_COMPLETED,
    FIRST_COMPLETED,
    FIRST_EXCEPTION,
    DoneAndNotDoneFutures,
    as_completed,
    wait,
)

__all__ = [
    "ALL_COMPLETED",
    "FIRST_COMPLETED",
    "FIRST_EXCEPTION",
    "DoneAndNotDoneFutures",
    "Future",
    "TaskInfo",
    "as_completed",
    "map",
    "mapReduce",
    "mapScan",
    "map_as_completed",
    "map_reduce",
    "map_scan",
    "once",
    "options",
    "progress",
    "rng",
    "shutdown",
    "submit",
    "task",
    "task_info",
    "wait",
]
