"""A host that sleeps: all of its processes stop at the same time, and continue at the same time.

The kernel's freezer does this (control groups of version 1 or 2); if neither can be used, each
process gets SIGSTOP. Unlike a real suspend, the clock of the host keeps running.
"""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from chaos.lab import namespaces
from chaos.lab.needs import LabError
from chaos.lab.undo import UndoLog

_V1 = Path("/sys/fs/cgroup/freezer")
_V2 = (Path("/sys/fs/cgroup/unified"), Path("/sys/fs/cgroup"))
_FREEZE_S = 5.0
_POLL_S = 0.002


class Freezer(Protocol):
    """Stops all processes of a host and continues them."""

    def joining(self, argv: list[str]) -> list[str]:
        """Return the command line that runs `argv` as one of these processes from its start."""

    def freeze(self) -> None:
        """Stop all processes; return when all have stopped."""

    def thaw(self) -> None:
        """Continue the processes; no error if they were not stopped."""

    def is_frozen(self) -> bool:
        """Return whether the processes are stopped."""


def freezer_of(name: str, pid: int, log: UndoLog) -> Freezer:
    """Return the freezer of a host; its first process must not have started another one yet."""
    kinds: list[tuple[type[GroupOne | GroupTwo], Path]] = [(GroupOne, _V1)]
    kinds += [(GroupTwo, root) for root in _V2]
    for kind, root in kinds:
        if not (root / "cgroup.procs").exists():
            continue
        group = root / name
        log.group(group)
        with suppress(OSError):
            group.mkdir(exist_ok=True)
            freezer = kind(group)
            if freezer.control.exists():
                (group / "cgroup.procs").write_text(str(pid))
                return freezer
    return Signals(namespaces.network_of(pid))


class GroupOne:
    """The freezer of version 1."""

    def __init__(self, group: Path) -> None:
        self.group = group
        self.control = group / "freezer.state"

    def joining(self, argv: list[str]) -> list[str]:
        """Return a command line that enters the group first."""
        return _joining(self.group, argv)

    def freeze(self) -> None:
        """Freeze, and wait until all are frozen."""
        self.control.write_text("FROZEN")
        _await(self)

    def thaw(self) -> None:
        """Thaw the group."""
        self.control.write_text("THAWED")

    def is_frozen(self) -> bool:
        """Return whether all are frozen; a process that is being frozen does not count."""
        return self.control.read_text().strip() == "FROZEN"


class GroupTwo:
    """The freezer of version 2."""

    def __init__(self, group: Path) -> None:
        self.group = group
        self.control = group / "cgroup.freeze"
        self.events = group / "cgroup.events"

    def joining(self, argv: list[str]) -> list[str]:
        """Return a command line that enters the group first."""
        return _joining(self.group, argv)

    def freeze(self) -> None:
        """Freeze, and wait until all are frozen."""
        self.control.write_text("1")
        _await(self)

    def thaw(self) -> None:
        """Thaw the group."""
        self.control.write_text("0")

    def is_frozen(self) -> bool:
        """Return whether all are frozen."""
        return "frozen 1" in self.events.read_text()


class Signals:
    """Sends SIGSTOP to each process until no running one is found; needs no control groups."""

    def __init__(self, network: str) -> None:
        self.network = network

    def joining(self, argv: list[str]) -> list[str]:
        """Return `argv` unchanged: a process belongs to the host if it is in the host's network."""
        return argv

    def freeze(self) -> None:
        """Stop all processes, also those that are started meanwhile."""
        until = time.monotonic() + _FREEZE_S
        while not self.is_frozen():
            self._send(signal.SIGSTOP)
            if time.monotonic() > until:
                raise LabError("some processes of the host do not stop")
            time.sleep(_POLL_S)

    def thaw(self) -> None:
        """Continue all processes."""
        self._send(signal.SIGCONT)

    def is_frozen(self) -> bool:
        """Return whether all are stopped."""
        return all(namespaces.state_of(pid) in "TZ" for pid in namespaces.members(self.network))

    def _send(self, number: signal.Signals) -> None:
        for pid in namespaces.members(self.network):
            with suppress(ProcessLookupError):
                os.kill(pid, number)


def _joining(group: Path, argv: list[str]) -> list[str]:
    return ["sh", "-c", 'echo $$ >"$0" && exec "$@"', str(group / "cgroup.procs"), *argv]


def _await(freezer: Freezer) -> None:
    until = time.monotonic() + _FREEZE_S
    while not freezer.is_frozen():
        if time.monotonic() > until:
            raise LabError("the kernel does not freeze the host's processes")
        time.sleep(_POLL_S)
