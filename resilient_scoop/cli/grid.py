"""Options that name other hosts and say how they are reached, of `rscoop run` and `rscoop resume`."""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

import click

from resilient_scoop.cli.base import DURATION, note, size
from resilient_scoop.counts import counted
from resilient_scoop.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from resilient_scoop.hosts.hostfile import Host, Shares
    from resilient_scoop.hosts.spec import GridSpec
    from resilient_scoop.runs.folder import RunDir

_Command = TypeVar("_Command", bound="Callable[..., Any]")
FILE: Final = "grid.json"
_LOCAL: Final = frozenset({"localhost", "127.0.0.1", "::1"})


class GridWish(NamedTuple):
    """The options as they were typed."""

    host: tuple[str, ...]
    hostfile: str | None
    min_hosts: int | None
    ssh: str | None
    ssh_config: str | None
    python: str | None
    prolog: str | None
    tunnel: bool
    external_address: str | None
    accept_new_host_keys: bool
    ship: bool
    orphan_timeout: float | None
    nice: int | None

    @property
    def is_given(self) -> bool:
        """Whether any of them was typed."""
        return any(self)


class Crew(NamedTuple):
    """The workers of a run."""

    here: int  # on this host
    total: int  # 0: not known yet, since some hosts give all their cores
    spec: GridSpec | None  # the other hosts

    @property
    def hosts(self) -> int:
        """How many hosts compute; 0: only this one."""
        return 0 if self.spec is None else len(self.spec.hosts)


_OPTIONS: Final = (
    click.option(
        "--host", multiple=True, metavar="HOST[:N]",
        help="Run workers on HOST, reached over SSH (user@host, host:N, node[01-16]); may be given "
        "several times. This host computes only if it is named: localhost:N.",
    ),
    click.option(
        "--hostfile", type=click.Path(), metavar="FILE",
        help="Run workers on the hosts in FILE, one per line: `alice`, `bob:8`, `carol slots=4`.",
    ),
    click.option(
        "--min-hosts", type=click.IntRange(min=0), metavar="N",
        help="Stop the run if fewer than N hosts can be reached at its start.  [default: 1]",
    ),
    click.option(
        "--ssh", type=click.Choice(["paramiko", "system"]),
        help="Log in with the library paramiko, or with the program ssh.  [default: paramiko]",
    ),
    click.option(
        "--ssh-config", type=click.Path(), metavar="FILE",
        help="The SSH configuration to use.  [default: ~/.ssh/config]",
    ),
    click.option("--python", metavar="PATH", help="The Python to use on the other hosts."),
    click.option(
        "--prolog", metavar="COMMAND",
        help="A shell command to run on the other hosts before Python (module load ...).",
    ),
    click.option(
        "--tunnel", is_flag=True,
        help="Send all traffic through the SSH connections; no other port has to be open.",
    ),
    click.option(
        "--external-address", metavar="ADDRESS",
        help="The address at which the other hosts can reach this one.",
    ),
    click.option(
        "--accept-new-host-keys", is_flag=True,
        help="Accept and remember the keys of hosts that SSH does not know yet.",
    ),
    click.option(
        "--ship", is_flag=True,
        help="Copy the script's folder to the hosts; they need no shared file system.",
    ),
    click.option(
        "--orphan-timeout", type=DURATION, metavar="DURATION",
        help="How long the other hosts wait, with their results, if this host is lost.  "
        "[default: 15m]",
    ),
    click.option(
        "--nice", type=click.IntRange(0, 19), metavar="N",
        help="The niceness of processes on the other hosts.",
    ),
)  # fmt: skip


def grid_options(command: _Command) -> _Command:
    """Give a command the options, as one parameter `grid`."""

    @functools.wraps(command)
    def collected(**given: Any) -> Any:
        wish = GridWish(**{name: given.pop(name) for name in GridWish._fields})
        return command(grid=wish, **given)

    wrapped: Any = collected
    for option in reversed(_OPTIONS):
        wrapped = option(wrapped)
    return wrapped  # type: ignore[no-any-return]  # the type of a decorator


def crew(
    wish: GridWish, workers: int | None, before: GridSpec | None = None, last: int | None = None
) -> Crew:
    """Return where workers run, and how many: `workers` is the requested total.

    `before` are the hosts of an earlier launch, and `last` its workers on this host.

    Raises:
        UsageError: a host cannot be read, or an option is missing its hosts.
    """
    cores = len(os.sched_getaffinity(0))
    if not wish.is_given and before is None:
        here = workers or last or cores
        return Crew(here, here, None)
    import msgspec

    from resilient_scoop.hosts.hostfile import read_hosts, split_total
    from resilient_scoop.hosts.spec import GridSpec

    hosts = read_hosts(wish.host, *_hostfile(wish.hostfile))
    if not hosts and wish.hostfile is not None:
        raise UsageError(f"the hostfile {wish.hostfile} names no host; write one in each line")
    if not hosts and before is None:
        raise UsageError("no other host is named: add --host HOST or --hostfile FILE")
    spec = _changed(before or GridSpec(), wish)
    if hosts or workers:
        spec = _with_hosts(spec, hosts or spec.hosts, workers)
    named_here = [each.name for each in spec.hosts if _is_here(each)]
    shares = split_total(spec.workers, spec.hosts, dict.fromkeys(named_here, cores))
    _report_shares(spec, shares)
    used = [each for each in spec.hosts if shares.is_used(each.name)]
    here = sum(shares.workers[name] or 0 for name in named_here)
    spec = msgspec.structs.replace(spec, hosts=used, here=named_here, workers_here=here)
    if not spec.others:
        return Crew(here, here, None)  # all are this one
    if spec.min_hosts > len(spec.others):
        raise UsageError(
            f"--min-hosts {spec.min_hosts}: the run has only {counted(len(spec.others), 'other host')}; "
            "name more hosts, or lower --min-hosts"
        )
    if not here and not spec.min_hosts:
        spec = _changed(spec, wish._replace(min_hosts=1))
    numbers = [shares.workers[each.name] for each in used]
    known = [number for number in numbers if number is not None]
    total = sum(known) if len(known) == len(numbers) else 0
    return Crew(here, total, spec)


def _report_shares(spec: GridSpec, shares: Shares) -> None:
    """Report how much of a total has no place, and which hosts get no worker."""
    if shares.missing:
        room = (spec.workers or 0) - shares.missing
        note(
            f"-n {spec.workers}: the hosts take only {room} workers; raise their numbers (HOST:N, "
            "max_slots=N), or name more hosts"
        )
    for each in spec.hosts:
        if not shares.is_used(each.name):
            note(f"host {each.name} gets no worker: other hosts take all of -n {spec.workers}")


def hosts_before(run: RunDir) -> GridSpec | None:
    """Return the hosts of an earlier launch; None if there were none but its own."""
    if not (run.path / FILE).exists():
        return None
    from resilient_scoop.hosts.spec import load

    return load(run.path)


def save_hosts(run: RunDir, spec: GridSpec, script: str | None, cwd: str) -> None:
    """Save the hosts of a launch, and pack the files that are shipped to them.

    Raises:
        UsageError: the script's folder cannot be shipped.
    """
    from resilient_scoop.hosts.shipping import pack
    from resilient_scoop.hosts.spec import save

    save(run.path, spec)
    if spec.ship:
        folder = Path(script).resolve().parent if script else Path(cwd)
        if not Path(cwd).resolve().is_relative_to(folder):
            raise UsageError(
                f"--ship sends {folder}, so hosts do not get {cwd}, in which the run is started: "
                f"change to {folder} first, or move the script to {cwd}"
            )
        manifest = pack(folder, run.path)
        files = counted(len(manifest.files), "file")
        note(f"each host gets {files} of {folder}, {size(manifest.size_bytes)}, unless it has them")


def _hostfile(path: str | None) -> tuple[str, str]:
    if path is None:
        return "", "hostfile"
    try:
        return Path(path).read_text("utf-8-sig"), path
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise UsageError(f"hostfile {path}: {reason}") from error


def _ssh_config(path: str | None) -> str | None:
    """Return the path of OpenSSH's configuration as other processes can use it."""
    if path is None or path == "none":
        return path
    found = Path(path).expanduser().absolute()
    if not found.is_file():
        raise UsageError(f"there is no SSH configuration {path}; correct --ssh-config")
    return str(found)


def _changed(spec: GridSpec, wish: GridWish) -> GridSpec:
    """Return the hosts of an earlier launch, changed by the present options."""
    import msgspec

    given = {
        "min_hosts": wish.min_hosts, "ssh": wish.ssh, "ssh_config": _ssh_config(wish.ssh_config),
        "python": wish.python, "prolog": wish.prolog, "tunnel": wish.tunnel or None,
        "external_address": wish.external_address, "ship": wish.ship or None,
        "accept_new_host_keys": wish.accept_new_host_keys or None,
        "orphan_timeout_s": wish.orphan_timeout, "nice": wish.nice,
    }  # fmt: skip
    kept = {name: value for name, value in given.items() if value is not None}
    return msgspec.structs.replace(spec, **kept)


def _with_hosts(spec: GridSpec, hosts: Sequence[Host], workers: int | None) -> GridSpec:
    import msgspec

    return msgspec.structs.replace(spec, hosts=list(hosts), workers=workers)


def _is_here(host: Host) -> bool:
    """Return whether a host is this one: its workers are started here, without SSH."""
    if host.address or host.port or host.user:
        return False  # options that say how to reach it ask for SSH
    return host.name in _LOCAL or host.name == os.uname().nodename
