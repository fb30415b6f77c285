"""The agent of another host than the run's: enrolls, then serves as any agent, over its uplink.

Its guardian (`processes.agent.guardian`) has made its folder, holds its lock and reads what the place
sends. What the agent itself writes to standard output is for the place.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from resilient_scoop.core.endings import STOPPED
from resilient_scoop.core.relay import Relay, RelayConfig
from resilient_scoop.counts import sized
from resilient_scoop.errors import BrokerUnreachableError, PlaceRefusedError
from resilient_scoop.processes import kept_code, starting
from resilient_scoop.processes.agent import shipped
from resilient_scoop.processes.agent.bundle_files import BundleFiles
from resilient_scoop.processes.agent.enrolment import PATIENCE_S, enroll
from resilient_scoop.processes.agent.main import AgentShell
from resilient_scoop.processes.agent.uplink import Uplink
from resilient_scoop.transport.sockets import socket_path
from resilient_scoop.transport.tickets import read_ticket
from resilient_scoop.wire import enrol

if TYPE_CHECKING:
    from resilient_scoop.ids import PeerId
    from resilient_scoop.processes.starting import ChildSettings, ScriptSpec

MARK: Final = "rscoop-host: "
"""Begins each line for the place."""
CONTROL: Final = "control"
"""Socket by which a later guardian hands over a new ticket."""
KEPT_MIB: Final = "RSCOOP_KEPT_MIB"
"""Names how much of what is not acknowledged an agent keeps in memory; more of it goes to files."""
_TICKET_BYTES_MAX: Final = 1 << 20
_LAST_LOGS_S: Final = 6.0
"""How long the rest of the logs may take at the end; the broker waits somewhat longer for the agent."""
_LOGS_PAUSE_S: Final = 2.0
"""How long none of it may arrive."""


def tell(**fields: Any) -> None:
    """Send a message to the place; if the place has ended, nothing needs the message."""
    line = MARK + json.dumps(fields) + "\n"
    with suppress(OSError):
        os.write(1, line.encode())


class RemoteShell(AgentShell):
    """An agent that can be handed a new ticket while it lives."""

    def __init__(
        self, settings: ChildSettings, uplink: Uplink, script: ScriptSpec, *, ships: bool
    ) -> None:
        """`script`: with its paths on the run's host, in case it is shipped."""
        keeps = BundleFiles(Path(settings.run_dir))
        self.relay = Relay(settings.run[:8], settings.node, _relay_config(), keeps)
        super().__init__(settings, uplink, self.relay)
        uplink.relay = self.relay
        self.script = script
        self.ships = ships
        self.uplink = uplink
        self.tickets = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
        self.tickets.bind(socket_path(str(Path(settings.run_dir) / "sock"), CONTROL))
        self.tickets.listen(4)
        uplink.watch(self.tickets.fileno())
        self.asked_to_stop = False
        signal.signal(signal.SIGTERM, self._terminated)

    def _terminated(self, *_: object) -> None:
        self.asked_to_stop = True

    def _mind_refusal(self) -> None:
        """End if the broker refuses this host's key: waiting would be useless."""
        if self.machine.stopping is not None:
            return
        why = ""
        if self.uplink.goodbye:
            with suppress(msgspec.MsgspecError):
                answer = enrol.decode_answer(self.uplink.goodbye)
                why = answer.why if isinstance(answer, enrol.NotEnrolled) else ""
            self.uplink.goodbye = b""
        elif self.uplink.is_refused:
            why = (
                "the broker does not take the key of this host any more: it was revoked, or another agent "
                "of this host has taken its place. To take part again, ask for a ticket: rscoop invite"
            )
        if why:
            tell(state="ended", why=why)
            self.machine.stop("asked", time.monotonic())

    def _meet_broker(self) -> None:
        """Check a new broker: if it belongs to another launch, replace workers whose code was edited."""
        try:
            if self.uplink.is_other_launch() and self._is_edited():
                # Each launch begins without copies, so that none of the edited files is used.
                shutil.rmtree(Path(self.settings.run_dir) / kept_code.FOLDER, ignore_errors=True)
                for action in self.machine.renew():
                    self._do(action)
        except PlaceRefusedError as error:
            self._tell_user(str(error))
            self.machine.stop("asked", time.monotonic())
        self.uplink.is_shut = False
        self.relay.hurry()  # what it has sent meanwhile did not pass

    def _is_edited(self) -> bool:
        """Return whether the code has changed; fetch the script's folder first, if it is shipped."""
        run_dir = Path(self.settings.run_dir)
        if not self.ships:
            return edited(run_dir)
        script = shipped.follow(run_dir, self.uplink, self.script)
        if script is not None:
            self.settings = msgspec.structs.replace(self.settings, script=script)
        return script is not None

    def _attend(self, ready: set[int]) -> None:
        if self.uplink.is_shut:
            self._meet_broker()
        if self.tickets.fileno() in ready:
            self._take_ticket()
        self._mind_refusal()
        if self.asked_to_stop:
            self.machine.stop("asked", time.monotonic())
        self.uplink.pass_files(ready, time.monotonic())

    def _forward(self, peer: PeerId, frames: list[bytes]) -> None:
        self.uplink.forward(peer, frames)

    def _tell_user(self, text: str) -> None:
        self.uplink.files.tell_user(text)

    def _unmet_need(self) -> str:
        return "" if self.uplink.fetch_code() else "the run's code cannot be fetched from its host"

    def _take_ticket(self) -> None:
        """Enroll again, if the broker has another key, or no longer sends anything."""
        with suppress(OSError, PlaceRefusedError, msgspec.MsgspecError):
            client, _ = self.tickets.accept()
            with client:
                client.settimeout(1.0)
                ticket = read_ticket(client.recv(_TICKET_BYTES_MAX))
                is_other = ticket.server.encode() != self.uplink.server
                if is_other or self.uplink.silent_s() > 2 * self.machine.config.alive_s:
                    self.uplink.admit(enroll(ticket))
                client.send(b"taken")

    def _send_logs(self) -> None:
        files, began = self.uplink.files, time.monotonic()
        missing, at = files.logs_missing(), began
        while missing and (now := time.monotonic()) < min(at + _LOGS_PAUSE_S, began + _LAST_LOGS_S):
            self.uplink.send_logs(now)
            left = files.logs_missing()
            missing, at = left, now if left < missing else at
        if missing:
            self._tell_user(
                f"{sized(missing)} of the logs of host {self.settings.node} did not arrive before its end, "
                "and are lost: the last of what its tasks have printed"
            )

    def _close(self) -> None:
        self.uplink.unwatch(self.tickets.fileno())
        self.tickets.close()


def _relay_config() -> RelayConfig:
    """Return how much of the unacknowledged results is kept in memory; the environment can set it."""
    try:
        mebibytes = int(os.environ[KEPT_MIB])
    except (KeyError, ValueError):
        return RelayConfig()
    return RelayConfig(memory_bytes_max=max(0, mebibytes) << 20)


def edited(run_dir: Path) -> bool:
    """Return whether a file differs on this host from its copy in the run's code."""
    for path, copy in kept_code.files(run_dir).items():
        with suppress(OSError):  # no copy here yet, or no such file on this host
            now, then = Path(path).stat(), copy.stat()
            # Whole seconds, because network file systems keep no finer time.
            if (now.st_size, int(now.st_mtime)) != (then.st_size, int(then.st_mtime)):
                return True
    return False


def check_folder(settings: ChildSettings) -> None:
    """Raise PlaceRefusedError if this host does not have the folder of the run's script."""
    spec = settings.script
    if not Path(spec.cwd).is_dir():
        raise PlaceRefusedError(
            f"{os.uname().nodename} has no folder {spec.cwd}, in which the run was started: make it "
            "available there at the same path (a shared file system), or copy the script's folder to the "
            "hosts (--ship)"
        )


def differing_packages(wanted: dict[str, str]) -> list[str]:
    """Return a warning for each package of this run whose version differs on this host."""
    from importlib import metadata

    found = []
    for name, version in wanted.items():
        try:
            here = metadata.version(name)
        except metadata.PackageNotFoundError:
            here = "not installed"
        if here != version:
            found.append(
                f"{name} is {here} on this host and {version} on the run's: values of it may not be "
                "readable here; install the same version"
            )
    return found


def main() -> int:
    """Run the agent of another host; return its exit status."""
    settings = starting.take_settings()
    with open(settings.ticket_fd, "rb") as pipe:  # noqa: PTH123 - a descriptor
        ticket = read_ticket(pipe.read())
    lasting = True  # a folder that is missing stays so until the user has changed something
    try:
        ships, script = bool(ticket.extra.get("ship")), settings.script
        if not ships:
            check_folder(settings)
        lasting = False
        admission = enroll(ticket, PATIENCE_S)
        settings = msgspec.structs.replace(
            settings, node=admission.host, node_number=admission.number
        )
        uplink = Uplink(settings.run_dir, settings.incarnation, admission)
        if ships:
            here = shipped.receive(Path(settings.run_dir), uplink, script)
            settings = msgspec.structs.replace(settings, script=here)
    except PlaceRefusedError as error:
        lasting = lasting or isinstance(error, BrokerUnreachableError)
        tell(state="refused", why=str(error), lasting=lasting)
        return STOPPED
    shell = RemoteShell(settings, uplink, script, ships=ships)
    tell(state="running", host=admission.host, pid=os.getpid())
    for text in differing_packages(ticket.extra.get("packages", {})):
        uplink.files.tell_user(text)
    code = shell.serve()
    if shell.control_fd < 0:  # the guardian may be gone, too
        shutil.rmtree(settings.run_dir, ignore_errors=True)
    return code
