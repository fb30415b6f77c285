"""`rscoop invite`: print a ticket with which another host can join a live run."""

from __future__ import annotations

import os
import socket
import sys

import click

from resilient_scoop.cli.base import DURATION, SETTINGS, note, run_argument
from resilient_scoop.cli.reach import check_live
from resilient_scoop.runs.folder import RunDir


@click.command(
    context_settings=SETTINGS,
    epilog="""\b
Examples:
    rscoop invite | ssh carol rscoop join
    rscoop invite --expires 1h --uses 8 evolve-7 > ticket      the file gets mode 0600
""",
)
@run_argument
@click.option(
    "--host",
    metavar="NAME",
    default="",
    help="The host's name in the run.  [default: its own name]",
)
@click.option(
    "--expires", type=DURATION, default="10m", metavar="DURATION",
    help="How long the ticket is valid.  [default: 10m]",
)  # fmt: skip
@click.option(
    "--uses", type=click.IntRange(min=1), default=1, metavar="N",
    help="How many hosts may use it.  [default: 1]",
)  # fmt: skip
@click.option(
    "--external-address", metavar="ADDRESS", multiple=True,
    help="The address at which the other host can reach this one.  [default: all addresses]",
)  # fmt: skip
def command(
    *, run: RunDir, host: str, expires: float, uses: int, external_address: tuple[str, ...]
) -> None:
    """Print a secret ticket with which another host can join RUN.

    The ticket is one line of text. Any host that has it and can reach this host may use it with
    `rscoop join`, once, until it expires.
    """
    from resilient_scoop.hosts.spec import ORPHAN_TIMEOUT_S, load
    from resilient_scoop.processes.ticket_extra import extra_for, settings_of
    from resilient_scoop.runs.asked import Listen, ask
    from resilient_scoop.transport.tickets import issue

    check_live(run, "invite")
    info = run.load()
    ask(run.path, Listen(), run.id)
    spec = load(run.path)
    orphan_s = ORPHAN_TIMEOUT_S if spec is None else spec.orphan_timeout_s
    extra = extra_for(settings_of(run, info), info, orphan_s)
    ticket = issue(
        run.path, host, run_key=run.key(info), valid_s=expires, uses=uses,
        addresses=external_address or own_addresses(), extra=extra,
    )  # fmt: skip
    if sys.stdout.isatty():
        note(
            "the next line is a secret: give it to `rscoop join` on the other host, on standard input"
        )
    elif os.fstat(1).st_mode & 0o077 and os.path.isfile("/proc/self/fd/1"):  # noqa: PTH113 - a file of the kernel
        os.fchmod(1, 0o600)
    click.echo(ticket.decode())


def own_addresses() -> list[str]:
    """Return names and addresses of this host, those that others can probably reach first."""
    name = socket.getfqdn()
    found = [name]
    try:
        infos = socket.getaddrinfo(os.uname().nodename, None, type=socket.SOCK_STREAM)
    except OSError:
        infos = []
    found += [str(info[4][0]) for info in infos]
    # an address for documentation: nothing is sent there
    for target in ("192.0.2.1", "2001:db8::1"):
        family = socket.AF_INET6 if ":" in target else socket.AF_INET
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as probe:
                probe.connect((target, 9))
                found.insert(0, str(probe.getsockname()[0]))
        except OSError:
            continue
    return list(dict.fromkeys([*found, "127.0.0.1"]))
