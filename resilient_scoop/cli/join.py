"""`rscoop join`: let this host compute for a run, by a ticket of `rscoop invite`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from typing import IO, Final

import click

from resilient_scoop.cli.base import SETTINGS, note
from resilient_scoop.errors import PlaceRefusedError, UsageError

_GRACE_S: Final = 10.0
_MARK: Final = "rscoop-host: "


@click.command(
    context_settings=SETTINGS,
    epilog="""\b
Examples:
    rscoop join < ticket
    ssh workstation rscoop invite | rscoop join -n 4
""",
)
@click.option(
    "-n", "--workers", type=click.IntRange(min=1), metavar="N",
    help="Worker processes.  [default: one per core]",
)  # fmt: skip
@click.argument("ticket", type=click.File("rb"), default="-", metavar="[FILE]")
def command(*, workers: int | None, ticket: IO[bytes]) -> int:
    """Join a run with the ticket in FILE, or on standard input.

    This host runs calls until the run ends. Ctrl-C leaves the run cleanly: calls that have started here
    are finished, or run on other hosts.
    """
    import msgspec

    from resilient_scoop.transport.tickets import read_ticket

    if ticket.isatty():
        note("paste the ticket, one line")
    line = ticket.readline()
    try:
        found = read_ticket(line)
    except msgspec.MsgspecError as error:
        raise UsageError(
            f"this is not a ticket ({error}): give the whole line that `rscoop invite` prints"
        ) from error
    if workers is not None:
        found = msgspec.structs.replace(found, extra={**found.extra, "workers": workers})
    return _serve(found.run_id, found.run_key, msgspec.json.encode(found))


def _serve(run_id: str, run_key: str, line: bytes) -> int:
    command = [
        sys.executable, "-m", "resilient_scoop.processes.entry", "host", run_key,
        f"{run_id}-join-{os.urandom(5).hex()}",
    ]  # fmt: skip
    process = subprocess.Popen(  # noqa: S603 - our own module
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    )
    assert process.stdin is not None, "it is a pipe"
    assert process.stdout is not None, "it is a pipe"
    process.stdin.write(line + b"\n")
    process.stdin.flush()
    leave = _Leave(process.stdin)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, leave)  # also where it is ignored, as in `rscoop join &`
    shown = _Shown(run_id, leave)
    for text in process.stdout:
        shown.take(text.decode("utf-8", "replace"))
    refused = shown.refused
    code = process.wait()
    if refused:
        raise PlaceRefusedError(refused)
    return code


class _Leave:
    """Leaves the run in the usual way when a signal requests it."""

    def __init__(self, stdin: IO[bytes]) -> None:
        self._stdin = stdin
        self.is_asked = False

    def __call__(self, *_: object) -> None:
        if not self.is_asked:
            self.is_asked = True
            note("leaving the run")
        with suppress(OSError):  # it has ended
            self._stdin.write(f"stop {_GRACE_S}\n".encode())
            self._stdin.flush()


class _Shown:
    """Shows the messages of the agent."""

    def __init__(self, run_id: str, leave: _Leave) -> None:
        self._run_id = run_id
        self._leave = leave
        self._is_explained = False  # why it has ended
        self.refused = ""  # why it was refused, if it was

    def take(self, text: str) -> None:
        """Take a line of its output."""
        if not text.startswith(_MARK):
            return
        report = json.loads(text.removeprefix(_MARK))
        why = str(report.get("why") or "")
        match report.get("state"):
            case "running":
                name = report.get("host")
                note(f"this host computes for run {self._run_id} as {name}; Ctrl-C leaves it")
            case "ended" if why:
                self._is_explained = True
                note(why)
            case "ended" if not self._is_explained and self._leave.is_asked:
                note("this host has left the run")
            case "ended" if not self._is_explained:
                note("the run does not need this host any more")
            case "refused":
                self.refused = why
            case _:
                pass  # starting
