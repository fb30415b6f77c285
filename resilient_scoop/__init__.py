"""resilient_scoop: futures that survive crashes, reboots and full disks.

    from resilient_scoop import futures

    if __name__ == "__main__":
        print(sum(futures.map(work, range(1000))))

Start it with `rscoop run script.py`; after any disaster, `rscoop resume RUN`. The attributes below
are those of SCOOP; they describe the process, and are set before the script is imported.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from resilient_scoop import this_process
from resilient_scoop._version import __version__
from resilient_scoop.this_process import BrokerInfo

if TYPE_CHECKING:
    import logging

    from resilient_scoop.executor import Executor
    from resilient_scoop.pool import Pool
    from resilient_scoop.session import Session
    from resilient_scoop.this_process import (
        BROKER,
        DEBUG,
        IS_ORIGIN,
        IS_RUNNING,
        SIZE,
        WORKER,
        worker,
    )  # fmt: skip

    logger: logging.Logger

__all__ = [
    "BROKER", "DEBUG", "IS_ORIGIN", "IS_RUNNING", "SIZE", "WORKER", "BrokerInfo", "Executor", "Pool",
    "Session", "__version__", "logger", "worker",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    """Return an attribute of this process, or import a name on first use.

    `logging` takes 3 ms in each process.
    """
    if name in this_process.NAMES:
        return getattr(this_process, name)
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


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
