"""The part of a ticket beside its keys: the settings of a run's processes, for an agent on another host."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from resilient_scoop.processes.options import RunOptions
from resilient_scoop.processes.starting import given_hash_seed, settings_for

if TYPE_CHECKING:
    from resilient_scoop.processes.starting import ChildSettings
    from resilient_scoop.runs.folder import RunDir, RunInfo

LAUNCH: Final = "launch.json"
"""The options of the present launch, beside its sockets: it is of use while these are there."""


def write_options(run: RunDir, options: RunOptions) -> None:
    """Write the options of a launch to disk, for hosts that join it later."""
    (run.socket_dir / LAUNCH).write_bytes(msgspec.json.encode(options))


def settings_of(run: RunDir, info: RunInfo) -> ChildSettings:
    """Return the settings of the processes of a live run."""
    try:
        options = msgspec.json.decode((run.socket_dir / LAUNCH).read_bytes(), type=RunOptions)
    except FileNotFoundError:
        options = RunOptions(workers=info.workers)
    settings = settings_for(run, info, options, adopt=False)
    environ = {} if info.around is None else info.around.environ  # this shell may have another one
    return msgspec.structs.replace(settings, hash_seed=given_hash_seed(info, environ))


def extra_for(settings: ChildSettings, info: RunInfo, orphan_timeout_s: float) -> dict[str, Any]:
    """Return the settings that an agent on another host needs for its processes, as plain values."""
    remote = msgspec.structs.replace(settings, orphan_timeout_s=orphan_timeout_s, tty=False)
    around = info.around
    return {
        "settings": msgspec.to_builtins(remote),
        "environ": {} if around is None else around.environ,
        "umask": 0o022 if around is None else around.umask,
        "packages": info.versions,
    }
