"""What the places of a run are told when they are started: the first line of standard input."""

from __future__ import annotations

import os

import msgspec

from resilient_scoop.hosts.hostfile import Host


class PlacesSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The hosts of a run, and how they are reached."""

    run_dir: str
    run_id: str
    hosts: list[Host]
    ssh: msgspec.Raw = msgspec.Raw(b"{}")
    """`hosts.make.SshOptions` as JSON; not decoded here, because the launcher does without paramiko."""
    port: int = 0  # where the broker listens
    external_address: str = (
        ""  # of this host, for all hosts; else each is told the one that it sees
    )
    tunnel: bool = False  # all traffic goes through SSH
    workers: int | None = None  # in all; None: each host has its number, or its cores
    min_hosts: int = 0
    min_hosts_s: float = 120.0
    stop_grace_s: float = 3.0
    drained: list[str] = []  # hosts that are not to be used again
    revoked: list[str] = []


def read_settings(stdin: int) -> PlacesSettings | None:
    """Read the first line of standard input, and no more; None if the launcher ends before.

    Raises:
        msgspec.MsgspecError: it holds no settings.
    """
    line = b""
    while not line.endswith(b"\n"):
        byte = os.read(stdin, 1)
        if not byte:
            return None
        line += byte
    return msgspec.json.decode(line, type=PlacesSettings)
