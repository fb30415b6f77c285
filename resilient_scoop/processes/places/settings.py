"""The settings of the machine and the shell of a run's places."""

from __future__ import annotations

import msgspec

from resilient_scoop.hosts.hostfile import Host


class PlacesSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The hosts of a run, and its limits."""

    run_dir: str
    run_id: str
    run_key: str  # `RunDir.key`
    hosts: list[Host]
    workers: int | None = None  # in all; None: each host has its number, or its cores
    min_hosts: int = 0
    min_hosts_s: float = 120.0
    stop_grace_s: float = 3.0
