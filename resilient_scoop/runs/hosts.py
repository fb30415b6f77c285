"""The hosts of a run on disk: `hosts.json`, which its places write, and `hosts-live.json` of its broker.

The places know how each host is started and why it is missing; the broker knows what connected
agents do. Both files are replaced as a whole, at most once per second, and may be missing.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from resilient_scoop.runs import json_text

PLACES_FILE: Final = "hosts.json"
LIVE_FILE: Final = "hosts-live.json"
OUT_FILE: Final = "hosts-out.json"
"""Hosts that are to leave, or have left, one a line; a new broker and new places need to know."""
RUNNING: Final = "running"
"""The state of a host whose agent has its link to the broker."""

_File = TypeVar("_File")


class HostReport(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The state of a host, as its place sees it; durations count from the time of the report."""

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


class HostRow(msgspec.Struct, frozen=True, kw_only=True):
    """The present knowledge about a host."""

    name: str
    state: str
    workers: int | None  # None: not known yet
    busy: int
    done: int  # results from it
    lost_items: int  # items that were given to other hosts because it was lost
    rate: float  # results per second, lately
    rtt_ms: float | None
    heard_s: float | None  # since its last message
    slack_s: float | None  # until it counts as lost
    at_risk_s: float  # seconds of work that are lost if it dies now
    why: str  # why it is missing, and the cure
    log: list[str]  # the last lines of its agent, where it has failed
    quarantine_s: float  # until it may be started again after it was lost repeatedly
    again_s: float  # until the next try
    until_s: float | None  # until its time limit


_BROKER_KNOWS: Final = frozenset({"up", "draining", "quarantined", "revoked"})
"""States of the broker (`core.broker.host_life`) that say more than what a place knows."""


def host_rows(places: HostsFile | None, live: LiveHostsFile | None, now: float) -> list[HostRow]:
    """Return all hosts, those that are started first, then those that came by invitation.

    `now` is in seconds since 1970; durations of the files are counted on to it.
    """
    started = {host.name: host for host in places.hosts} if places else {}
    linked = live.hosts if live else {}
    names = [*started, *(name for name in linked if name not in started)]
    passed_s = max(0.0, now - places.at) if places else 0.0
    quiet_s = max(0.0, now - live.at) if live else 0.0
    return [_row(name, started.get(name), linked.get(name), passed_s, quiet_s) for name in names]


def _row(
    name: str, started: HostReport | None, linked: LiveHost | None, passed_s: float, quiet_s: float
) -> HostRow:
    start = started or HostReport(name=name, state="")
    link = linked or LiveHost()
    is_known = link.state in _BROKER_KNOWS
    is_linked = is_known or start.state in ("", RUNNING)
    until_s = None if start.until_s is None else max(0.0, start.until_s - passed_s)
    return HostRow(
        name=name,
        state=(link.state or start.state or RUNNING) if is_linked else start.state,
        workers=link.workers if linked and link.workers else start.workers,
        busy=link.busy, done=link.done, lost_items=link.lost_items, rate=link.rate,
        rtt_ms=link.rtt_ms, at_risk_s=link.at_risk_s,
        slack_s=None if link.heard_s is None else max(0.0, link.slack_s - quiet_s),
        heard_s=None if link.heard_s is None else link.heard_s + quiet_s,
        why=start.why or link.why, log=start.log.splitlines(),
        quarantine_s=max(0.0, start.quarantine_s - passed_s),
        again_s=0.0 if is_known else max(0.0, start.again_s - passed_s), until_s=until_s,
    )  # fmt: skip


_TAKEN_OUT: Final = {"drained": "was drained", "revoked": "was revoked"}
_LEFT: Final = "unknown"
"""The state, for the broker, of a host whose agent has left in order."""
_NAMED_MAX: Final = 5


def none_left(run_id: str, started: Collection[str], states: Mapping[str, str]) -> str:
    """Return a text for the user if no other host can compute any more; else an empty one.

    `started` are the hosts that a place starts, `states` what is known of all: a host that is taken out
    does not come back, and one that came by invitation and has left does not come by itself.
    """
    named = []
    for name in sorted({*started, *states}):
        state = states.get(name, "")
        if state not in _TAKEN_OUT and (name in started or state != _LEFT):
            return ""
        named.append(f"{name} {_TAKEN_OUT.get(state, 'has left')}")
    if not named:
        return ""
    more = len(named) - _NAMED_MAX
    named[_NAMED_MAX:] = [f"{more} more have gone"] if more > 0 else []
    return (
        f"no host is left that may compute: {', '.join(named)}. The run waits, and nothing is lost. "
        f"To add a host now: rscoop invite {run_id}. Or stop the run, and resume it with another host: "
        f"rscoop resume {run_id} --host HOST"
    )


def read_missing(run: Path) -> list[HostReport]:
    """Return the hosts of a run that are missing for a reason that its places know."""
    hosts = read_hosts(run)
    return [] if hosts is None else [each for each in hosts.hosts if each.why]


def write_hosts(run: Path, hosts: HostsFile) -> None:
    """Replace `hosts.json`; a power cut may lose it."""
    draft = run / f"{PLACES_FILE}.tmp"
    draft.write_bytes(json_text.encode(hosts))
    draft.rename(run / PLACES_FILE)


def read_hosts(run: Path) -> HostsFile | None:
    """Return `hosts.json`; None if there is none that can be read."""
    return _read(run / PLACES_FILE, HostsFile)


def read_out(run: Path) -> dict[str, str]:
    """Return the hosts that are not to be used, each with "drained" or "revoked"."""
    return _read(run / OUT_FILE, dict[str, str]) or {}


def read_live_hosts(run: Path) -> LiveHostsFile | None:
    """Return `hosts-live.json`; None if there is none that can be read."""
    return _read(run / LIVE_FILE, LiveHostsFile)


def _read(path: Path, kind: type[_File]) -> _File | None:
    try:
        return json_text.decode(path.read_bytes(), kind)
    except (FileNotFoundError, msgspec.MsgspecError):
        return None
