"""`rscoop doctor`: check hosts before a run, and say what to change."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import click
import msgspec

from resilient_scoop.cli.base import SCHEMA, SETTINGS, json_option, print_json, size
from resilient_scoop.cli.tables import GAP, Column, fit, folded, width_here
from resilient_scoop.counts import counted
from resilient_scoop.errors import UsageError
from resilient_scoop.hosts.checkup import Checkup, CheckupReport, Level, Listener, ThisMachine
from resilient_scoop.hosts.hostfile import Host, read_hosts
from resilient_scoop.hosts.make import DoorKind, SshOptions, make_door
from resilient_scoop.hosts.remote_command import RemoteSettings
from resilient_scoop.hosts.ssh_config import same_hosts
from resilient_scoop.hosts.ssh_login import LOGINS_MAX, LoginSettings
from resilient_scoop.runs.versions import installed_versions

_UNUSABLE: Final = 75
_COLORS: Final = {Level.PROBLEM: "red", Level.WARNING: "yellow"}
_COLUMNS: Final = (
    Column("HOST", is_cut=True),
    Column("STATE"),
    Column("LOGIN", rank=3, is_right=True),
    Column("PYTHON", rank=1),
    Column("RSCOOP", rank=2),
    Column("CORES", rank=4, is_right=True),
    Column("MEMORY", rank=5, is_right=True),
    Column("FREE", rank=6, is_right=True),
    Column("CLOCK", rank=7, is_right=True),
    Column("ROUTE BACK", rank=8, is_cut=True),
)


class DoctorReport(msgspec.Struct, frozen=True):
    """The `--json` output."""

    schema: int
    hosts: list[CheckupReport]
    warnings: list[str]  # about several hosts


@click.command(
    context_settings=SETTINGS,
    epilog="""\b
Examples:
    rscoop doctor --hostfile hosts.txt
    rscoop doctor --host alice --host bob:8
    rscoop doctor --host alice --json
""",
)
@click.option(
    "--host", "words", multiple=True, metavar="HOST[:N]",
    help="A host; may be given several times. Without hosts, this machine is checked.",
)  # fmt: skip
@click.option(
    "--hostfile", type=click.Path(dir_okay=False), metavar="FILE",
    help="The hosts in FILE, one per line: `alice`, `bob:8`, `carol slots=4 port=2222`.",
)  # fmt: skip
@click.option(
    "--ssh-config",
    "-F",
    "config_file",
    metavar="FILE",
    default="",
    help="The SSH configuration to use.  [default: ~/.ssh/config]",
)
@click.option(
    "--ssh", type=click.Choice(["paramiko", "system"]), default="paramiko", show_default=True,
    help="Log in with the library paramiko, or with the program ssh.",
)  # fmt: skip
@click.option("--python", default="", metavar="PATH", help="The Python to use on the hosts.")
@click.option(
    "--prolog", default="", metavar="COMMAND",
    help="A shell command to run on the hosts before Python (module load ...).",
)  # fmt: skip
@click.option(
    "--accept-new-host-keys",
    is_flag=True,
    help="Accept and remember the keys of hosts that SSH does not know yet.",
)
@click.option(
    "--external-address", default="", metavar="ADDRESS",
    help="The address at which the hosts try to reach this one.  [default: by the route to each]",
)  # fmt: skip
@click.option("--tunnel", is_flag=True, help="Check only the way back through the SSH connection.")
@click.option(
    "--connect-timeout", type=click.FloatRange(min=0.1, max=600), default=10.0, show_default=True,
    metavar="SECONDS", help="The time limit for each step of a login.",
)  # fmt: skip
@json_option
@click.pass_context
def command(  # noqa: PLR0913 - one parameter for each option
    ctx: click.Context,
    *,
    words: tuple[str, ...],
    hostfile: str | None,
    config_file: str,
    ssh: str,
    python: str,
    prolog: str,
    accept_new_host_keys: bool,
    external_address: str,
    tunnel: bool,
    connect_timeout: float,
    as_json: bool,
) -> None:
    """Check hosts before a run, and say what to change.

    Checked are login, host key, Python, versions, disk, clock, limits, and whether the host can connect
    to this one. Nothing is changed on the hosts. The exit code is 0 if all can be used, otherwise 75.
    """
    hosts = _hosts(words, hostfile)
    options = SshOptions(
        kind=DoorKind(ssh),
        config_file=config_file,
        remote=RemoteSettings(python=python, prolog=prolog, script_folder=str(Path.cwd())),
        login=LoginSettings(accept_new_host_keys, connect_timeout),
    )
    here = ThisMachine(installed_versions(), external_address, tunnel)
    warnings = _warnings(hosts, config_file)
    reports = _reports(hosts or [Host("localhost")], options, here)
    if as_json:
        print_json(DoctorReport(SCHEMA, reports, warnings))
    else:
        _print(reports, warnings)
    if not all(report.is_usable for report in reports):
        ctx.exit(_UNUSABLE)


def _hosts(words: tuple[str, ...], hostfile: str | None) -> list[Host]:
    if hostfile is None:
        return read_hosts(words)
    try:
        text = Path(hostfile).read_text(encoding="utf-8-sig", errors="replace")
    except OSError as error:
        raise UsageError(
            f"the hostfile {hostfile} cannot be read: {error.strerror}; correct --hostfile"
        ) from error
    hosts = read_hosts(words, text, hostfile)
    if not hosts:
        raise UsageError(f"the hostfile {hostfile} names no host; write one in each line")
    return hosts


def _warnings(hosts: list[Host], config_file: str) -> list[str]:
    others = [host for host in hosts if not host.is_local]
    return same_hosts(others, config_file) if others else []


def _reports(hosts: list[Host], options: SshOptions, here: ThisMachine) -> list[CheckupReport]:
    here_too = msgspec.structs.replace(options, kind=DoorKind.LOCAL)
    doors = [make_door(host, here_too if host.is_local else options) for host in hosts]
    clocks = (time.monotonic, time.time)  # noqa: TID251 - clocks of two machines are compared
    with Listener() as listener, ThreadPoolExecutor(LOGINS_MAX) as pool:
        looks = [
            pool.submit(Checkup(host, door, options.remote, here, listener, clocks).run)
            for host, door in zip(hosts, doors, strict=True)
        ]
        return [look.result() for look in looks]


def _print(reports: list[CheckupReport], warnings: list[str]) -> None:
    visible, lines = fit(_COLUMNS, [_cells(report) for report in reports], width_here())
    state = visible.index(1)
    for number, line in enumerate(lines):
        if number:
            color = _color(reports[number - 1])
            line[state] = click.style(line[state], fg=color) if color else line[state]
        click.echo(GAP.join(line).rstrip())
    for report in reports:
        for finding in report.findings:
            _print_colored(f"{report.name}: {finding.text}", _COLORS[finding.level])
    for warning in warnings:
        _print_colored(warning, _COLORS[Level.WARNING])
    bad = sum(not report.is_usable for report in reports)
    if bad:
        click.echo(f"\n{counted(bad, 'host')} of {len(reports)} cannot be used")


def _print_colored(text: str, color: str) -> None:
    click.echo()
    for line in folded(text):
        click.echo(click.style(line, fg=color))


def _cells(report: CheckupReport) -> list[str]:
    return [
        report.name,
        _state(report),
        "-" if report.login_s is None else f"{report.login_s:.1f} s",
        report.python or "-",
        report.rscoop or "-",
        str(report.cores or "-"),
        size(report.memory_bytes) if report.memory_bytes else "-",
        size(min(report.home_free_bytes, report.tmp_free_bytes)) if report.cores else "-",
        "-" if report.clock_s is None else f"{report.clock_s:+.1f} s",
        report.route or "-",
    ]


def _state(report: CheckupReport) -> str:
    if not report.is_usable:
        return "unusable"
    return "warnings" if report.findings else "ok"


def _color(report: CheckupReport) -> str | None:
    if not report.is_usable:
        return _COLORS[Level.PROBLEM]
    return _COLORS[Level.WARNING] if report.findings else "green"
