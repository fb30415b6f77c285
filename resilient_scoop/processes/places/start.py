"""Start of the process of a run's places: how hosts are reached, and what agents get."""

from __future__ import annotations

import socket
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from resilient_scoop.errors import UsageError
from resilient_scoop.hosts import spec as grid
from resilient_scoop.hosts.make import DoorKind, ReachablePlace, SshOptions, make_place
from resilient_scoop.hosts.remote_command import RemoteSettings
from resilient_scoop.hosts.ssh_config import same_hosts
from resilient_scoop.hosts.ssh_login import LoginSettings
from resilient_scoop.processes.places.main import serve
from resilient_scoop.processes.places.settings import PlacesSettings
from resilient_scoop.processes.starting import ChildSettings, take_settings
from resilient_scoop.processes.ticket_extra import extra_for
from resilient_scoop.runs.folder import RunDir, RunInfo
from resilient_scoop.transport import tickets

if TYPE_CHECKING:
    from resilient_scoop.hosts.base import Place
    from resilient_scoop.hosts.hostfile import Host
    from resilient_scoop.processes.places.calls import Share

DOOR_S: Final = 20.0
"""How long a broker may take to read its journal before a start is put off."""
TICKET_S: Final = 600.0
"""How long a ticket of ours may be used: a start on a slow file system takes minutes."""


def main() -> int:
    """Run the places of a run."""
    settings = take_settings()
    run = RunDir(Path(settings.run_dir))
    spec = grid.load(run.path)
    assert spec is not None, "there are other hosts"
    places = PlacesSettings(
        run_dir=settings.run_dir, run_id=settings.run_id, run_key=settings.run_key, hosts=spec.others,
        workers=spec.for_others, min_hosts=spec.min_hosts, stop_grace_s=settings.stop_grace_s,
    )  # fmt: skip
    info = run.load()
    options = ssh_options(spec, info)
    tickets_of = _Tickets(settings, run, spec, info)
    return serve(
        places, lambda host: make_place(host, options, settings.run_key), tickets_of.make,
        _warnings(spec.others, options.config_file),
    )  # fmt: skip


def _warnings(hosts: list[Host], config_file: str) -> list[str]:
    """Return warnings of hosts with two names; a file that cannot be used is reported later."""
    with suppress(UsageError):
        return same_hosts(hosts, config_file)
    return []


def ssh_options(spec: grid.GridSpec, info: RunInfo) -> SshOptions:
    """Return the user's settings for logins."""
    folder = str(Path(info.script).parent) if info.script else info.cwd
    return SshOptions(
        kind=DoorKind(spec.ssh),
        config_file=spec.ssh_config or "",
        remote=RemoteSettings(
            python=spec.python, script_folder=folder, prolog=spec.prolog, nice=spec.nice
        ),
        login=LoginSettings(accept_new_host_keys=spec.accept_new_host_keys),
    )


class _Tickets:
    """Makes the tickets with which agents join the run."""

    def __init__(
        self, settings: ChildSettings, run: RunDir, spec: grid.GridSpec, info: RunInfo
    ) -> None:
        self._run = run
        self._settings = settings
        self._spec = spec
        self._extra = {**extra_for(settings, info, spec.orphan_timeout_s), "ship": spec.ship}

    def make(self, place: Place, share: Share) -> bytes:
        """Return the ticket of one start; raises PlaceError."""
        reachable: Any = place
        addresses = self._addresses(reachable, share.host)
        extra = {**self._extra, "workers": share.workers, "workers_max": share.limit}
        return tickets.issue(
            self._run.path,
            share.host.name,
            run_key=self._settings.run_key,
            valid_s=TICKET_S,
            addresses=addresses,
            extra=extra,
        )

    def _addresses(self, place: ReachablePlace, host: Host) -> list[str]:
        """Return the addresses at which a host finds the broker, the best first."""
        spec = self._spec
        place.connect()
        door = tickets.door_of(self._run.path, wait_s=DOOR_S)
        if spec.tunnel if host.tunnel is None else host.tunnel:
            return [place.tunnel(door.port)]
        if spec.external_address:
            return [spec.external_address]
        found = [place.route(), _toward(host.target), socket.getfqdn()]
        return list(dict.fromkeys(each for each in found if each))


def _toward(target: str) -> str | None:
    """Return our address on the way to a host, as the kernel would choose it; nothing is sent."""
    with suppress(OSError):
        family, kind, protocol, _, address = socket.getaddrinfo(target, 9, type=socket.SOCK_DGRAM)[
            0
        ]
        with socket.socket(family, kind, protocol) as probe:
            probe.connect(address)
            return str(probe.getsockname()[0])
    return None
