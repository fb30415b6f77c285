"""Places of a run's hosts, made from the user's settings."""

from __future__ import annotations

from enum import Enum
from typing import Protocol, assert_never

import msgspec

from resilient_scoop.errors import UsageError
from resilient_scoop.hosts.base import Place
from resilient_scoop.hosts.conversation import HearOver
from resilient_scoop.hosts.door import Door
from resilient_scoop.hosts.host_place import START_S, HostPlace
from resilient_scoop.hosts.hostfile import Host
from resilient_scoop.hosts.local import LocalDoor
from resilient_scoop.hosts.remote_command import RemoteSettings
from resilient_scoop.hosts.shut import ShutDoor
from resilient_scoop.hosts.ssh import SshDoor
from resilient_scoop.hosts.ssh_config import SshConfig
from resilient_scoop.hosts.ssh_login import LoginSettings
from resilient_scoop.hosts.ssh_system import SystemDoor


class DoorKind(Enum):
    """The kinds of doors."""

    PARAMIKO = "paramiko"
    SYSTEM = "system"  # the `ssh` program
    LOCAL = "local"


class SshOptions(msgspec.Struct, frozen=True):
    """The user's settings for hosts and logins, for all hosts; plain, so that they can be sent as JSON."""

    kind: DoorKind = DoorKind.PARAMIKO
    config_file: str = ""  # --ssh-config
    remote: RemoteSettings = RemoteSettings()
    login: LoginSettings = LoginSettings()
    start_s: float = START_S
    ssh_program: str = "ssh"
    shell: str = "/bin/sh"  # of places `local`


class ReachablePlace(Place, Protocol):
    """A host as a place, with the methods that are needed to make its ticket."""

    def connect(self) -> None:
        """Log in and find Python, so that a start takes no time; raises PlaceError."""

    def hear_over(self, hear: HearOver) -> None:
        """Set a function to call when an agent started from now on has ended; it must not wait."""

    def route(self) -> str | None:
        """Return the address of this machine as the host sees it; None if there is no direct route."""

    def tunnel(self, port: int, address: str = "127.0.0.1") -> str:
        """Let the host reach a port of this machine; return `address:port` on the host's loopback."""


def make_place(host: Host, options: SshOptions, run_key: str) -> ReachablePlace:
    """Return the place of a host; nothing is connected yet."""
    door = make_door(host, options)
    return HostPlace(host, door, options.remote, run_key=run_key, start_s=options.start_s)


def make_door(host: Host, options: SshOptions) -> Door:
    """Return the door of a host; nothing is connected yet.

    If OpenSSH's configuration cannot be used for it, the door refuses everything, with the reason.
    """
    match options.kind:
        case DoorKind.PARAMIKO:
            try:
                return SshDoor(host, SshConfig(options.config_file), options.login)
            except UsageError as error:
                return ShutDoor(host.name, str(error))
        case DoorKind.LOCAL:
            return LocalDoor(host.name, options.shell)
        case DoorKind.SYSTEM:
            return SystemDoor(host, options.config_file, options.login, options.ssh_program)
        case _ as never:
            assert_never(never)
