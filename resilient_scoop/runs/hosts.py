"""The hosts of a run on disk: `hosts.json`, which its places write, and `hosts-live.json` of its broker.

The places know how each host is started and why it is not there, the broker what the agents do that are
there. Both files are replaced as a whole, at most once per second, and may be missing.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final, TypeVar

import msgspec

from resilient_scoop.runs import json_text

PLACES_FILE: Final = "hosts.json"
LIVE_FILE: Final = "hosts-live.json"

_File = TypeVar("_File", bound=msgspec.Struct)


class HostReport(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How a host is started, as its place sees it; durations count from the time of the report."""

    name: str
    state: str  # as in `core.places.State`, or "drained", "revoked"
    why: str = ""
    workers: int | None = None  # None: as many as its cores
    log: str = ""  # the last lines of its agent
    quarantine_s: float = 0.0  # the rest of it
    again_s: float = 0.0  # until the next try
    until_s: float | None = None  # until its time limit


class HostsFile(msgspec.Struct, frozen=True):
    """`hosts.json`."""

    at: float  # seconds since 1970
    hosts: list[HostReport]


class LiveHost(msgspec.Struct, frozen=True, kw_only=True):
    """What the broker knows of the agent of a host."""

    workers: int = 0
    busy: int = 0
    done: int = 0
    lost_items: int = 0
    rtt_ms: float | None = None
    heard_s: float | None = None  # since the last message
    state: str = ""
    why: str = ""
    rate: float = 0.0  # items per second, lately
    slack_s: float = 0.0  # until it counts as lost
    at_risk_s: float = 0.0  # seconds of work that are lost if it dies now


class LiveHostsFile(msgspec.Struct, frozen=True):
    """`hosts-live.json`."""

    at: float  # seconds since 1970
    hosts: dict[str, LiveHost]


def write_hosts(run: Path, hosts: HostsFile) -> None:
    """Replace `hosts.json`; a power cut may lose it."""
    draft = run / f"{PLACES_FILE}.tmp"
    draft.write_bytes(json_text.encode(hosts))
    draft.rename(run / PLACES_FILE)


def read_hosts(run: Path) -> HostsFile | None:
    """Return `hosts.json`; None if there is none that can be read."""
    return _read(run / PLACES_FILE, HostsFile)


def read_live_hosts(run: Path) -> LiveHostsFile | None:
    """Return `hosts-live.json`; None if there is none that can be read."""
    return _read(run / LIVE_FILE, LiveHostsFile)


def _read(path: Path, kind: type[_File]) -> _File | None:
    try:
        return json_text.decode(path.read_bytes(), kind)
    except (FileNotFoundError, msgspec.MsgspecError):
        return None
