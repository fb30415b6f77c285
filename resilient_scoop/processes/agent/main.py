"""The agent of a host: the shell of `core.agent`, which starts its processes and waits for their ends.

It runs no user code, so nothing can stop it from vouching for processes that do. The kernel reports
deaths; the flight records say what is being executed, and its deadline. The origin is one of its
processes on the launcher's host.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol, assert_never

import msgspec

from resilient_scoop.adapters.flight_record import FlightRecord
from resilient_scoop.adapters.free_space import NO_SPACE
from resilient_scoop.core import agent
from resilient_scoop.core.agent import Agent, AgentConfig, Slot
from resilient_scoop.processes import leftovers, starting
from resilient_scoop.processes.agent import host, notes
from resilient_scoop.processes.failures import limit_met
from resilient_scoop.processes.stderr import write_note
from resilient_scoop.runs.executing import state_of
from resilient_scoop.transport.sockets import DealerSocket, local_endpoint

if TYPE_CHECKING:
    from collections.abc import Sequence

    from resilient_scoop.core.flight import Flight
    from resilient_scoop.core.relay import Relay
    from resilient_scoop.ids import PeerId
    from resilient_scoop.processes.starting import ChildSettings

CHECK_S: Final = 0.1
"""Interval of reading the flight records: a `timeout=` may be late by this time."""


class Child(msgspec.Struct, eq=False):
    """A process, with its descriptor and its flight record."""

    popen: subprocess.Popen[bytes]
    pidfd: int
    record: FlightRecord
    mark: str  # mark that its children inherit


class UpwardSocket(Protocol):
    """The connection to the broker, as far as it is used here."""

    def send(self, frames: Sequence[bytes]) -> None:
        """Send a message."""

    def receive(self) -> list[bytes] | None:
        """Return a received message, or None."""

    def watch(self, fd: int) -> None:
        """Make `wait` return when a descriptor is readable."""

    def unwatch(self, fd: int) -> None:
        """Remove a descriptor."""

    def wait(self, timeout_s: float) -> set[int]:
        """Wait; return the descriptors that are readable."""

    def close(self) -> None:
        """Close it."""


class AgentShell:
    """Carries out the machine's actions, and gives it events."""

    def __init__(
        self, settings: ChildSettings, socket: UpwardSocket, relay: Relay | None = None
    ) -> None:
        self.settings = settings
        remote = settings.is_remote
        before = f"{settings.node}:" if remote else ""
        has_origin = not (remote or settings.options.in_process)
        slots = [Slot("origin", "origin")] if has_origin else []
        slots += [Slot("worker", f"{before}w{n + 1}") for n in range(settings.options.workers)]
        config = AgentConfig(
            settings.stop_grace_s, always_replay=settings.options.always_replay,
            orphan_timeout_s=settings.orphan_timeout_s if remote else None,
        )  # fmt: skip
        self.machine = Agent(
            config, slots, node=settings.node, name="agent", pid=os.getpid(), run=settings.run[:8],
            relay=relay,
        )  # fmt: skip
        self.socket = socket
        self.children: dict[str, Child] = {}  # by the name of their slot
        self.gone: dict[str, Child] = {}  # ended in this turn
        self.status: int | None = None
        # the script's process has ended, and this is not reported yet
        self.died: agent.Died | None = None
        self.ooms = host.oom_kills()
        node = settings.node if remote else ""
        self.mark = leftovers.mark_of(settings.run_key, settings.incarnation, node)
        leftovers.adopt()
        self.logs = Path(settings.run_dir) / "logs"
        self.logs.mkdir(mode=0o700, exist_ok=True)
        self.control_fd = settings.control_fd
        for fd in (self.control_fd, settings.stdin_fd, settings.errors_fd, settings.screen_fd):
            if fd >= 0:
                os.set_inheritable(fd, False)  # noqa: FBT003 - the system call takes it so
        self.socket.watch(self.control_fd)

    def serve(self) -> int:
        """Supervise until the run ends; return the exit status."""
        self._turn(set())
        while self.status is None:
            wait_s = self.machine.deadline() - time.monotonic()
            self._turn(self.socket.wait(max(0.0, min(CHECK_S, wait_s))))
        self._close()
        self.socket.close()
        return self.status

    def _close(self) -> None:
        """Close the parts that only this kind of agent has."""

    def _turn(self, ready: set[int]) -> None:
        """Give the machine the events and the time."""
        if self.control_fd in ready:
            self._hear_control()
        self._attend(ready)
        while self.status is None and (frames := self.socket.receive()) is not None:
            self._step(agent.Received(frames, self._flights()))
        for name, child in list(self.children.items()):
            if child.pidfd in ready:
                self._reap(name, child)
        if self.status is None:
            self._tick()

    def _hear_control(self) -> None:
        """Handle a line `stop SECONDS`, or the end of the launcher."""
        words = os.read(self.control_fd, 4096).split()
        if not words:
            self.socket.unwatch(self.control_fd)
            self.control_fd = -1
            self._step(agent.LauncherGone())
        elif words[0] == b"stop" and self.status is None:
            self.machine.stop("asked", time.monotonic())

    def _write(self, note: agent.Note) -> None:
        """Report something; the death of the script's process only when it is started again.

        If the run stops instead, it reports this itself.
        """
        if isinstance(note, agent.Died) and note.role == "origin":
            self.died = note
        else:
            self._tell_user(notes.text_of(note, self.logs, self.settings.run_id))

    def _tick(self) -> None:
        states = None
        if time.monotonic() >= self.machine.looks_at:
            states = {name: state_of(child.popen.pid) for name, child in self.children.items()}
            leftovers.bury({child.popen.pid for child in self.children.values()})
        self._step(agent.Ticked(self._flights(), states))

    def _flights(self) -> dict[str, Flight]:
        return {name: child.record.look() for name, child in self.children.items()}

    def _step(self, event: agent.Event) -> None:
        for action in self.machine.step(event, time.monotonic()):
            self._do(action)

    def _do(self, action: agent.Action) -> None:
        match action:
            case agent.Start():
                self._step(self._start(action))
            case agent.KillProcess(name=name):
                self.children[name].popen.kill()
            case agent.EndLeftovers(name=""):
                leftovers.end_all(
                    lambda: leftovers.below(set()) | leftovers.of_session(-1, self.mark)
                )
            case agent.EndLeftovers(name=name):
                gone = self.gone[name]
                leftovers.end_all(lambda: leftovers.of_session(gone.popen.pid, gone.mark))
            case agent.WriteNote(note=note):
                self._write(note)
            case agent.Transmit(frames=frames) | agent.Beat(frames=frames):
                self.socket.send(frames)
            case agent.Forward(peer=peer, frames=frames):
                self._forward(peer, frames)
            case agent.SendLogs():
                self._send_logs()
            case agent.EndAgent(status=status):
                self.status = status
            case _:
                assert_never(action)

    def _attend(self, ready: set[int]) -> None:
        """Handle descriptors that only this kind of agent has."""

    def _forward(self, peer: PeerId, frames: list[bytes]) -> None:
        """Send a message in the name of a process that has ended."""

    def _tell_user(self, text: str) -> None:
        """Send a message to the user."""
        write_note(text)

    def _send_logs(self) -> None:
        """Do nothing: the logs of this agent are already on the run's host."""

    def _unmet_need(self) -> str:
        """Return what is missing to start a process; empty if nothing is."""
        return ""

    def _start(self, wanted: agent.Start) -> agent.Started | agent.NotStarted:
        """Start a slot's process; return the resulting event."""
        slot = self.machine.slots[wanted.name]
        if need := self._unmet_need():
            return agent.NotStarted(slot.name, need)
        incarnation = slot.role[0].encode() + os.urandom(8)
        record = FlightRecord.create(slot.name)
        mark = f"{self.mark}{incarnation.hex()}"
        settings = msgspec.structs.replace(
            self.settings, name=slot.name, incarnation=incarnation, mark=mark,
            record_fd=record.fd, control_fd=-1, errors_fd=-1, screen_fd=-1, ticket_fd=-1,
            careful=wanted.careful, may_be_freed=wanted.may_be_freed,
        )  # fmt: skip
        try:
            popen = self._spawn(slot, settings, refusal_reported=wanted.refusal_reported)
        except OSError as error:
            record.close()
            full = error.errno in NO_SPACE  # for its log
            return agent.NotStarted(slot.name, limit_met(error) or str(error), full)
        if slot.role == "origin" and self.died is not None:
            self._tell_user(notes.text_of(self.died, self.logs, self.settings.run_id))
            self.died = None
        child = Child(popen, os.pidfd_open(popen.pid), record, mark)
        self.children[slot.name] = child
        self.socket.watch(child.pidfd)
        return agent.Started(slot.name, incarnation, popen.pid)

    def _spawn(
        self, slot: Slot, settings: ChildSettings, *, refusal_reported: bool
    ) -> subprocess.Popen[bytes]:
        if slot.role == "origin":
            return starting.start(
                "origin", settings, stdin=0, stdout=1, stderr=2, user_code=True,
                refusal_reported=refusal_reported,
            )  # fmt: skip
        settings = msgspec.structs.replace(settings, stdin_fd=-1)
        with (self.logs / f"{slot.name}.log").open("ab") as log:
            return starting.start(
                "worker", settings, stdin=subprocess.DEVNULL, stdout=log.fileno(),
                stderr=log.fileno(), user_code=True,
            )  # fmt: skip

    def _reap(self, name: str, child: Child) -> None:
        """Handle the end of a process: end its group, and tell the machine."""
        with contextlib.suppress(ProcessLookupError):  # no process of its group is left
            os.killpg(child.popen.pid, signal.SIGKILL)  # before its id can be reused
        code = child.popen.wait()
        del self.children[name]
        self.socket.unwatch(child.pidfd)
        os.close(child.pidfd)
        flight = child.record.look()
        child.record.close()
        ooms, self.ooms = self.ooms, host.oom_kills()
        why = host.reported_reason(self.machine.slots[name], code, self.logs)
        at = time.time()  # noqa: TID251 - a label for display
        self.gone[name] = child
        self._step(agent.Exited(name, code, flight, self.ooms > ooms, why, at))
        del self.gone[name]


def main() -> int:
    """Run the agent of the run's own host."""
    settings = starting.take_settings()
    endpoint = local_endpoint(str(Path(settings.run_dir) / "sock"))
    return AgentShell(settings, DealerSocket(endpoint, settings.incarnation)).serve()
