"""The role of this process in its run, under SCOOP's names: `IS_RUNNING`, `SIZE`, `WORKER` and others.

The package shows these names as its own (`resilient_scoop.SIZE`). They are in this module because
the rooms of the package read and set them, and cannot import the package itself. They are set
before the script is imported.
"""

from __future__ import annotations

from typing import Final, NamedTuple


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

NAMES: Final = frozenset({"BROKER", "DEBUG", "IS_ORIGIN", "IS_RUNNING", "SIZE", "WORKER", "worker"})
