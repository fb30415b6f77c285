"""resilient_scoop: futures that survive crashes, reboots and full disks.

    from resilient_scoop import futures

    if __name__ == "__main__":
        print(sum(futures.map(work, range(1000))))

Start it with `rscoop run script.py`; after any disaster, `rscoop resume RUN`. The attributes below
are those of SCOOP; they describe the process, and are set before the script is imported.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from resilient_scoop._version import __version__

if TYPE_CHECKING:
    import logging

    from resilient_scoop.executor import Executor
    from resilient_scoop.pool import Pool
    from resilient_scoop.session import Session

    logger: logging.Logger

__all__ = [
    "BROKER", "DEBUG", "IS_ORIGIN", "IS_RUNNING", "SIZE", "WORKER", "BrokerInfo", "Executor", "Pool",
    "Session", "__version__", "logger", "worker",
]  # fmt: skip


class BrokerInfo(NamedTuple):
    """The address of the broker."""

    hostname: str
    endpoint: str


IS_RUNNING: bool = False
"""Whether this process belongs to a run that `rscoop` started."""
IS_ORIGIN: bool = False
"""Whether this process runs the script itself."""
WORKER: str | None = None
"""Name of this process in its run (`w1`, `origin`), or None."""
worker: str | None = None
BROKER: BrokerInfo | None = None
DEBUG: bool = False
SIZE: int = 0
"""How many workers the run was started with."""


def __getattr__(name: str) -> Any:
    """Return what is loaded on first use, since it takes time: `logging` takes 3 ms in each process."""
    if name == "logger":
        import logging

        made: Any = logging.getLogger(__name__)
    elif name == "Executor":
        from resilient_scoop import executor

        made = executor.Executor
    elif name == "Pool":
        from resilient_scoop import pool

        made = pool.Pool
    elif name == "Session":
        from resilient_scoop import session

        made = session.Session
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = made
    return made
