"""Reports of the places to the launcher: JSON lines on standard output."""

from __future__ import annotations

import msgspec

from resilient_scoop.runs.hosts import HostReport


class HostAgentOver(msgspec.Struct, frozen=True):
    """The agent of a host and all its processes have ended, as the host itself reports."""

    host: str
    agent: str  # hexadecimal
    died: bool


class PlacesReport(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A line of standard output; unchanged parts are left out."""

    note: str = ""  # a sentence for the user
    hosts: list[HostReport] | None = None  # all hosts, when one has changed
    over: HostAgentOver | None = None  # for the broker
    fatal: int = 0  # exit code of a run that must stop because too few hosts have connected
