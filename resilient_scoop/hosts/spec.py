"""Which other hosts a run uses, and how they are reached: `grid.json` in its folder.

It is written when a run is started or resumed with options of this kind, and read by the processes
that need it. A resume without such options uses the earlier hosts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from resilient_scoop.adapters.synced_files import write_synced
from resilient_scoop.hosts.hostfile import Host

if TYPE_CHECKING:
    from pathlib import Path

FILE: Final = "grid.json"
ORPHAN_TIMEOUT_S: Final = 900.0
"""How long an agent on another host continues without a broker."""


class GridSpec(msgspec.Struct, frozen=True, kw_only=True):
    """The hosts of a run, except its own."""

    hosts: list[Host] = []
    here: list[str] = []  # names of those that are the run's own host
    workers: int | None = None  # in all; None: as many as the hosts have cores
    workers_here: int = 0  # of these, on the run's own host
    min_hosts: int = 0  # the run stops if fewer come
    ssh: str = "paramiko"  # or "system"
    ssh_config: str | None = None
    python: str = ""
    prolog: str = ""
    tunnel: bool = False
    external_address: str = ""
    accept_new_host_keys: bool = False
    ship: bool = False
    nice: int = 0
    orphan_timeout_s: float = ORPHAN_TIMEOUT_S

    @property
    def others(self) -> list[Host]:
        """The hosts that are reached over SSH."""
        return [each for each in self.hosts if each.name not in self.here]

    @property
    def for_others(self) -> int | None:
        """The total number of workers on the other hosts; None: as many as they have cores."""
        return None if self.workers is None else max(0, self.workers - self.workers_here)


def save(run_dir: Path, spec: GridSpec) -> None:
    """Write the hosts of a run to disk, durably."""
    write_synced(run_dir / FILE, msgspec.json.encode(spec))


def load(run_dir: Path) -> GridSpec | None:
    """Return the hosts of a run; None if it has only its own."""
    try:
        return msgspec.json.decode((run_dir / FILE).read_bytes(), type=GridSpec)
    except FileNotFoundError:
        return None
