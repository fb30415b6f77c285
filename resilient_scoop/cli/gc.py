"""`rscoop gc`: remove old runs, never live ones, and by default only finished ones."""

from __future__ import annotations

import stat
import time
from dataclasses import dataclass
from pathlib import Path

import click

from resilient_scoop.cli.base import DURATION, SETTINGS, size, state_folder
from resilient_scoop.counts import counted
from resilient_scoop.errors import RscoopError, RunBusyError
from resilient_scoop.runs import catalog
from resilient_scoop.runs.catalog import RunEntry
from resilient_scoop.runs.display import duration
from resilient_scoop.runs.folder import RunDir
from resilient_scoop.runs.status import (
    RunState,
    is_live,
    open_view,
    read_ended,
    state_of,
    state_of_error,
)

_TOUCHED_BY_READERS = frozenset({"figures.json", "lock", "lock.mdb", "shown"})


@dataclass(frozen=True, slots=True)
class _Candidate:
    run: RunDir
    state: RunState
    age_s: float
    size_bytes: int


@click.command(
    context_settings=SETTINGS,
    epilog="""\b
Examples:
    rscoop gc --dry-run
    rscoop gc --older-than 7d --keep 5
    rscoop gc --all --older-than 90d     also runs that could be resumed
""",
)
@click.option(
    "--older-than", "older_than_s", type=DURATION, default="30d", metavar="DURATION",
    help="Remove runs that have written nothing for this long; reading a run does not count.  "
    "[default: 30d]",
)  # fmt: skip
@click.option(
    "--keep", type=click.IntRange(min=0), default=0, metavar="N", help="Keep the newest N runs."
)
@click.option(
    "--finished-only/--all", default=True,
    help="Remove only finished runs, or also those that failed, were stopped or cannot be read.  "
    "[default: --finished-only]",
)  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Show what would be removed, and remove nothing.")
def command(*, older_than_s: float, keep: int, finished_only: bool, dry_run: bool) -> None:
    """Remove old runs with their journals, output and logs.

    `rscoop rm RUN` removes one run.
    """
    state_dir = state_folder()
    now = time.time()  # noqa: TID251 - files have wall clock times
    entries = catalog.list_runs(state_dir)
    removed = freed_bytes = 0
    for entry in entries[: len(entries) - keep if keep else None]:
        found = _look(entry, now)
        if not _is_due(found, older_than_s, finished_only=finished_only):
            continue
        if not dry_run and not _remove(found.run):
            continue
        removed += 1
        freed_bytes += found.size_bytes
        verb = "would remove" if dry_run else "removed"
        click.echo(f"{verb} {found.run.id}  {found.state}  {duration(found.age_s)}  "
                   f"{size(found.size_bytes)}")  # fmt: skip
    if not dry_run:
        catalog.remove_rests(state_dir)
    verb = "would be removed, and {} freed" if dry_run else "removed, {} freed"
    click.echo(f"{removed} of {counted(len(entries), 'run')} {verb.format(size(freed_bytes))}")


def _is_due(found: _Candidate, older_than_s: float, *, finished_only: bool) -> bool:
    if found.state is RunState.RUNNING or found.age_s < older_than_s:
        return False
    return found.state is RunState.FINISHED or not finished_only


def _look(entry: RunEntry, now: float) -> _Candidate:
    used_at, size_bytes = _extent(entry.run.path)
    return _Candidate(entry.run, _state(entry), max(0.0, now - used_at), size_bytes)


def _state(entry: RunEntry) -> RunState:
    if is_live(entry.run):
        return RunState.RUNNING
    if entry.info is None:
        return state_of_error(entry.problem)
    try:
        view = open_view(entry.run)
        if view is None:
            return RunState.STOPPED
        with view:
            return state_of(entry.run, read_ended(view))
    except RscoopError as error:
        return state_of_error(error)


def _extent(folder: Path) -> tuple[float, int]:
    """Return when the run last wrote anything, and the size of its folder on disk.

    Folders, locks and cached figures do not count: reading a run touches them.
    """
    used_at, size_bytes = 0.0, 0
    for path in (folder, *folder.rglob("*")):
        try:
            found = path.lstat()
        except OSError:
            continue  # it was removed meanwhile
        size_bytes += found.st_blocks * 512
        if stat.S_ISREG(found.st_mode) and path.name not in _TOUCHED_BY_READERS:
            used_at = max(used_at, found.st_mtime)
    return used_at or folder.lstat().st_mtime, size_bytes


def _remove(run: RunDir) -> bool:
    try:
        catalog.remove(run)
    except RunBusyError:
        return False  # resumed a moment ago
    return True
