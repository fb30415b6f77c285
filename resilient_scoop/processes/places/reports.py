"""Reports of the places to the launcher: JSON lines on standard output."""

from __future__ import annotations

import msgspec

from resilient_scoop.runs.hosts import HostReport


class PlacesReport(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A line of standard output; what has not changed is left out."""

    note: str = ""  # a sentence for the user
    hosts: list[HostReport] | None = None  # all hosts, when one has changed
    fatal: int = 0  # exit code: too few hosts have come, the run is to stop
