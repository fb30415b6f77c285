"""The processes of a run as `/proc` shows them: found by command line, or by their environment.

Every process that a round starts inherits `TOKEN` in its environment, so a leftover is found even
if nothing else connects it to its run.
"""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

TOKEN = "CHAOS_TOKEN"  # an environment variable's name
_MODULE = "resilient_scoop.processes.entry"
_ARGUMENTS_MIN = 2


class Role(StrEnum):
    """The role of a process in a run, or all processes together."""

    WORKER = "worker"
    AGENT = "agent"
    ORIGIN = "origin"
    BROKER = "broker"
    LAUNCHER = "launcher"
    PLACES = "places"
    HOST_AGENT = "remote-agent"  # the agent of another host
    GUARDIAN = "host"  # what a place has started on another host; it supervises that agent
    EVERYTHING = "everything"  # all, one after the other: those that live longer see the others die
    POWER = "power"  # all at the same moment, as in a power failure


OF_OTHER_HOSTS = (Role.PLACES, Role.HOST_AGENT, Role.GUARDIAN)
"""Roles that a run of one machine does not have."""


@dataclass(frozen=True, slots=True)
class Process:
    """A process of a run."""

    pid: int
    role: Role

    def is_alive(self, run_key: str) -> bool:
        """Return whether it still runs: it is no zombie, and its id does not belong to another process."""
        return self.role is Role.LAUNCHER or role_of(self.pid, run_key) is self.role


def role_of(pid: int, run_key: str) -> Role | None:
    """Return the role of a process in a run; None for a zombie, an unrelated process, or none."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return None
    if _MODULE not in words:
        return None
    rest = words[words.index(_MODULE) + 1 :]
    if len(rest) < _ARGUMENTS_MIN or rest[1] != run_key:
        return None
    return Role(rest[0]) if rest[0] in set(Role) else None


def of_run(run_key: str) -> list[Process]:
    """Return the live processes of a run, without its launcher."""
    found = []
    for pid in _pids():
        role = role_of(pid, run_key)
        if role is not None:
            found.append(Process(pid, role))
    return found


def with_token(token: str) -> dict[int, str]:
    """Return the live processes that inherited a token: id -> command line."""
    mark = f"{TOKEN}={token}\0".encode()
    found = {}
    for pid in _pids():
        try:
            if mark in Path(f"/proc/{pid}/environ").read_bytes() + b"\0":
                words = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ")
                found[pid] = words.decode(errors="replace").strip()
        except OSError:
            continue  # it has ended meanwhile, or is another user's
    return {pid: words for pid, words in found.items() if words}


def kill(pid: int) -> bool:
    """Kill a process immediately; return whether it existed."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def cut_power(pids: list[int]) -> list[int]:
    """Kill processes at the same moment, so that none sees another one die; return those that existed."""
    stopped = []
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
            stopped.append(pid)
    return [pid for pid in stopped if kill(pid)]


def _pids() -> list[int]:
    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdecimal()]
