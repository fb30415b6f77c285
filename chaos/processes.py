"""The processes of a run as `/proc` shows them: found by command line, or by what they inherited.

Every process that a round starts inherits `TOKEN` in its environment, whatever it does later, so a
leftover is found even where it forgot its run.
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
    """What a process of a run is, or that all of them are meant."""

    WORKER = "worker"
    AGENT = "agent"
    ORIGIN = "origin"
    BROKER = "broker"
    LAUNCHER = "launcher"
    PLACES = "places"
    HOST_AGENT = "remote-agent"  # of another host
    GUARDIAN = "host"  # what a place has started there, which watches over that agent
    EVERYTHING = "everything"  # one after the other: those who live longer see the others die
    POWER = "power"  # all at the same moment, as when the power fails


OF_OTHER_HOSTS = (Role.PLACES, Role.HOST_AGENT, Role.GUARDIAN)
"""Roles that a run of one machine does not have."""


@dataclass(frozen=True, slots=True)
class Process:
    """A process of a run."""

    pid: int
    role: Role

    def is_alive(self, run_key: str) -> bool:
        """Return whether it is still this process: no zombie, and not another with its number."""
        return self.role is Role.LAUNCHER or role_of(self.pid, run_key) is self.role


def role_of(pid: int, run_key: str) -> Role | None:
    """Return what a process is in a run; None for a zombie, a stranger, or none at all."""
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
    """Return the live processes of a run, its launcher excepted."""
    found = []
    for pid in _pids():
        role = role_of(pid, run_key)
        if role is not None:
            found.append(Process(pid, role))
    return found


def with_token(token: str) -> dict[int, str]:
    """Return the live processes that inherited a token: number -> command line."""
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
    """Kill a process at once; return whether it was there."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def cut_power(pids: list[int]) -> list[int]:
    """Kill processes at the same moment: none sees another one die. Return those that were there."""
    stopped = []
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
            stopped.append(pid)
    return [pid for pid in stopped if kill(pid)]


def _pids() -> list[int]:
    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdecimal()]
