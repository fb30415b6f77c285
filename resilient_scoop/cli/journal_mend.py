"""`rscoop journal compact` and `repair`: make a journal smaller, or remove its damage."""

from __future__ import annotations

import ctypes
import os
import time
from pathlib import Path
from typing import Final

import click
import msgspec

from resilient_scoop.adapters.synced_files import sync_folder
from resilient_scoop.cli.base import (
    DURATION,
    SCHEMA,
    SETTINGS,
    json_option,
    print_json,
    run_argument,
    size,
)
from resilient_scoop.counts import counted
from resilient_scoop.errors import (
    JournalDamagedError,
    JournalError,
    JournalFormatError,
    JournalLostError,
    UsageError,
)
from resilient_scoop.journal.journal import Journal
from resilient_scoop.journal.place import read_generation
from resilient_scoop.journal.repair import Repaired, repair
from resilient_scoop.journal.upkeep import REFUSED_FILE, WANTED_FILE
from resilient_scoop.journal.view import JournalView
from resilient_scoop.runs.folder import RunDir
from resilient_scoop.runs.status import is_live

_POLL_S: Final = 0.05
_EXCHANGE: Final = 2
_AT_FDCWD: Final = -100
_LOST_SHOWN_MAX: Final = 20


class CompactReport(msgspec.Struct, frozen=True):
    """The `compact --json` output."""

    schema: int
    id: str
    before_bytes: int
    after_bytes: int


class RepairReport(msgspec.Struct, frozen=True):
    """The `repair --json` output."""

    schema: int
    id: str
    kept: dict[str, int]
    lost: list[str]
    damaged: str  # where the damaged journal is now


@click.command(
    context_settings=SETTINGS,
    epilog="""\b
Examples:
    rscoop journal compact last
""",
)
@run_argument
@click.option(
    "--timeout", "timeout_s", type=DURATION, default="10m", metavar="DURATION",
    help="How long to wait for a live run.  [default: 10m]",
)  # fmt: skip
@json_option
def compact(*, run: RunDir, timeout_s: float, as_json: bool) -> None:
    """Return free space in RUN's journal to the disk.

    A run does this by itself when half of its journal is free. A live run continues meanwhile.
    """
    run.load()  # this version cannot change a newer format
    check_begun(run)
    before_bytes = _size_bytes(run)
    if is_live(run):
        _ask(run, timeout_s)
    else:
        with run.hold():
            journal = Journal.open(run.journal)
            try:
                journal.compact()
            finally:
                journal.close(clean=True)
    after_bytes = _size_bytes(run)
    if as_json:
        print_json(CompactReport(SCHEMA, run.id, before_bytes, after_bytes))
    else:
        click.echo(f"journal of {run.id}: {size(before_bytes)} before, {size(after_bytes)} now")


@click.command(
    context_settings=SETTINGS,
    epilog="""\b
Examples:
    rscoop journal verify last || rscoop journal repair last && rscoop resume last
""",
)
@run_argument
@json_option
def repair_command(*, run: RunDir, as_json: bool) -> None:
    """Make a new journal of RUN's undamaged records.

    The damaged journal is kept beside the new one. `rscoop resume` computes lost results again.
    """
    info = run.load()
    if is_live(run):
        raise run.busy_error()
    if not run.journal.is_dir():
        raise JournalFormatError(
            str(run.journal), "the run has no journal; there is nothing to repair"
        )
    with run.hold():
        aside = _free_name(run)
        try:
            found = repair(run.journal, aside, run=bytes.fromhex(info.uuid))
        except JournalDamagedError as error:
            raise JournalLostError(str(run.journal), error.reason, run.id) from error
        _exchange(aside, run.journal)
        sync_folder(run.path)
    if as_json:
        print_json(RepairReport(SCHEMA, run.id, found.kept, found.lost, str(aside)))
    else:
        _tell(run, found, aside)


def check_begun(run: RunDir) -> None:
    """Raise JournalFormatError for a run that has no journal yet."""
    if not run.journal.is_dir() or not any(run.journal.iterdir()):
        raise JournalFormatError(str(run.journal), "the run has not begun; it holds nothing yet")


def _tell(run: RunDir, found: Repaired, aside: Path) -> None:
    for text in found.lost[:_LOST_SHOWN_MAX]:
        click.echo(f"lost: {text}")
    if len(found.lost) > _LOST_SHOWN_MAX:
        click.echo(f"lost: {len(found.lost) - _LOST_SHOWN_MAX} more; --json lists all")
    records = sum(found.kept.values())
    click.echo(
        f"journal of {run.id} is sound again: {counted(records, 'record')} kept; the damaged one is {aside}"
    )
    if not found.lost:
        click.echo(f"nothing was lost; to continue: rscoop resume {run.id}")
        return
    click.echo(
        f"`rscoop resume {run.id}` computes again what was lost. If answers were lost (an order of "
        f"completion, a timeout), the script may get other answers and continue differently; with "
        f"--strict the resume stops there"
    )


def _ask(run: RunDir, timeout_s: float) -> None:
    """Make the process that holds the journal compact it."""
    wanted, refused = run.journal / WANTED_FILE, run.journal / REFUSED_FILE
    before = read_generation(run.journal).data
    refused.unlink(missing_ok=True)
    wanted.touch(mode=0o600)
    until = time.monotonic() + timeout_s
    try:
        while wanted.exists():
            if not is_live(run):
                raise UsageError(f"run {run.id} has just ended; run the command again")
            if time.monotonic() > until:
                raise JournalError(str(run.journal), "compacting", f"not done in {timeout_s:g} s")
            time.sleep(_POLL_S)
    finally:
        wanted.unlink(missing_ok=True)
    if refused.exists():
        reason = refused.read_text("utf-8", "replace")
        refused.unlink(missing_ok=True)
        raise JournalError(str(run.journal), "compacting", reason)
    if read_generation(run.journal).data == before:
        raise UsageError(
            f"run {run.id} ended before it had compacted its journal; run the command again"
        )


def _size_bytes(run: RunDir) -> int:
    with JournalView.open(run.journal) as view:
        return view.size_bytes()


def _free_name(run: RunDir) -> Path:
    number = 1
    while (aside := run.path / f"journal.aside-{number}").exists():
        number += 1
    return aside


def _exchange(first: Path, second: Path) -> None:
    """Exchange the names of two folders in one step: a run is never without a journal."""
    libc = ctypes.CDLL(None, use_errno=True)
    names = os.fsencode(first), os.fsencode(second)
    if libc.renameat2(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _EXCHANGE) == 0:
        return
    reason = os.strerror(ctypes.get_errno())
    raise JournalError(
        str(second), "putting the repaired journal in its place",
        f"{reason}; it is sound and is in {first}: exchange the two folders by hand",
    )  # fmt: skip
