"""An agent's connections on a host that is not the run's: its workers below, the broker above.

It relays the messages of its workers, unread. While there is no connection to the broker they are dropped;
the links of the workers send them again, and for workers that have ended the agent does (`core.relay`).
Files have a connection of their own, so that signs of life do not wait behind them.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from resilient_scoop.ids import PeerId
from resilient_scoop.processes.agent.host_files import AgentFiles
from resilient_scoop.transport.large_frames import KeptFrames
from resilient_scoop.transport.remote import RemoteDealer
from resilient_scoop.transport.sockets import RouterSocket, local_endpoint
from resilient_scoop.wire.messages import unpack_header

if TYPE_CHECKING:
    from collections.abc import Sequence

    from resilient_scoop.core.relay import Relay
    from resilient_scoop.processes.agent.enrolment import Admission

ENROL, FILES, MESSAGE, SHORT, MISSING = b"E", b"F", b"M", b"S", b"L"
CODE_S: Final = 20.0
"""How long the copies of the user's code may take, which are needed to start a worker."""
_PAUSE_S: Final = 0.002
LAUNCH_S: Final = 5.0
"""How long it may take to learn whether a broker is of another launch."""
TICK_S: Final = 0.05
"""How often transfers are looked after, while there are some."""


class _Message(NamedTuple):
    """A message of the broker."""

    to: bytes
    frames: list[bytes]


class Uplink:
    """The replacement for the socket to the broker in `AgentShell`."""

    def __init__(self, run_dir: str, incarnation: bytes, admission: Admission) -> None:
        self._incarnation = incarnation
        self.relay: Relay | None = None  # keeps copies of what workers send
        self._large = KeptFrames()
        self._epoch = 0  # of the broker that was heard last
        self.goodbye = b""  # a refusal of the broker (`wire.enrol`)
        self.is_shut = False  # nothing is relayed between workers and the broker
        self._workers = RouterSocket(local_endpoint(str(Path(run_dir) / "sock")))
        self._connect(admission)
        self.files = AgentFiles(Path(run_dir), self._send_bulk, self.watch, self.unwatch)

    def admit(self, admission: Admission) -> None:
        """Connect again, under another key."""
        for before in (self._broker, self._bulk):
            self._workers.part(before)
            before.close()
        self._connect(admission)

    def _connect(self, admission: Admission) -> None:
        self._broker = RemoteDealer(admission.endpoint, admission.keys, admission.server)
        self._bulk = RemoteDealer(admission.endpoint, admission.keys, admission.server)
        self._workers.join(self._broker, self._bulk)
        self._heard_at = time.monotonic()
        self.server = admission.server

    @property
    def is_refused(self) -> bool:
        """Whether the broker refuses the key of this host."""
        return self._broker.is_refused

    def silent_s(self) -> float:
        """Return the time since the last message of the broker."""
        return time.monotonic() - self._heard_at

    def _send_bulk(self, frame: bytes) -> None:
        self._bulk.send([FILES, frame])

    def send(self, frames: Sequence[bytes]) -> None:
        """Send a message of the agent."""
        self._broker.send([MESSAGE, self._incarnation, *frames])

    def receive(self) -> list[bytes] | None:
        """Relay what has arrived; return a message for the agent, or None."""
        for worker, frames in self._workers.receive():
            if self.relay is not None:
                self.relay.up(worker, frames)
            if not self.is_shut:
                self._broker.send([MESSAGE, worker, *frames])
        while (parcel := self._broker.receive()) is not None:
            self._heard_at = time.monotonic()
            if parcel[0] == ENROL:
                self.goodbye = parcel[1]
                continue
            found = self._message(parcel)
            if found is None:
                continue
            try:
                header = unpack_header(found.frames[0])
            except (ValueError, IndexError):
                continue
            self._look_at_epoch(header.epoch)
            if found.to == self._incarnation:
                return found.frames
            peer = PeerId(found.to)
            if (self.relay is None or self.relay.down(peer, header)) and not self.is_shut:
                self._workers.send(peer, found.frames)
        return None

    def forward(self, peer: PeerId, frames: Sequence[bytes]) -> None:
        """Send a message in the name of a worker that has ended."""
        if not self.is_shut:
            self._broker.send([MESSAGE, peer, *frames])

    def _look_at_epoch(self, epoch: int) -> None:
        """Relay nothing of a new broker until it is known whether it belongs to another launch."""
        if epoch > self._epoch:
            self.is_shut = self._epoch > 0
            self._epoch = epoch

    def is_other_launch(self) -> bool:
        """Return whether the broker belongs to another launch than the code that this host has loaded."""
        until = time.monotonic() + LAUNCH_S
        return self.files.is_other_launch(self._pump_files, time.monotonic, until)

    def _message(self, parcel: list[bytes]) -> _Message | None:
        """Return a complete message for a process of this host; None if it is not one, or lacks a part."""
        match parcel:
            case [channel, to, *frames] if channel == MESSAGE:
                self._large.keep(frames)
                return _Message(to, frames)
            case [channel, to, positions, *frames] if channel == SHORT:
                whole = self._large.whole(positions, frames)
                if isinstance(whole, list):
                    return _Message(to, whole)
                self._broker.send([MISSING, whole])
        return None

    def fetch_code(self) -> bool:
        """Fetch the copies of the user's code; return whether there are any.

        Without a connection, the earlier copies are used.
        """
        until = time.monotonic() + CODE_S
        whole = self.files.fetch_code(self._pump_files, time.monotonic, until)
        return whole or self.files.has_code

    def fetch(self, name: str, until: float) -> bool:
        """Fetch one file of the run; return whether that worked in time."""
        return self.files.fetch(name, self._pump_files, time.monotonic, until)

    def send_logs(self, now: float) -> None:
        """Send the rest of the logs, and check what has arrived."""
        self.files.send_logs(now)
        self._pump_files()

    def _pump_files(self) -> None:
        """Transfer files for a moment; other ready descriptors are handled later."""
        ready = self._workers.wait(TICK_S)
        self.pass_files(ready, time.monotonic())
        if ready:
            time.sleep(_PAUSE_S)

    def pass_files(self, fds: set[int], now: float) -> None:
        """Transfer files: `fds` are descriptors that are ready."""
        self.files.ready(fds, now)
        while (parcel := self._bulk.receive()) is not None:
            if parcel[:1] == [FILES]:
                self.files.hear(parcel[1], now)
        self.files.tick(now)

    def watch(self, fd: int) -> None:
        """Make `wait` return when a descriptor is readable."""
        self._workers.watch(fd)

    def unwatch(self, fd: int) -> None:
        """Remove a descriptor."""
        self._workers.unwatch(fd)

    def wait(self, timeout_s: float) -> set[int]:
        """Wait for a message or a watched descriptor; return the descriptors that are readable."""
        if self.is_shut:
            timeout_s = 0.0  # the agent must check the new broker
        most_s = TICK_S if self.files.is_busy else timeout_s
        return self._workers.wait(min(timeout_s, most_s))

    def close(self) -> None:
        """Close all connections."""
        self.files.close()
        self._workers.part(self._broker)
        self._workers.part(self._bulk)
        for socket in (self._broker, self._bulk, self._workers):
            socket.close()
