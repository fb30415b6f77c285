"""A consistent copy of a run's folder at one moment, for backups and forks of live runs.

The database is copied at one moment. Files that its records name are linked before and after that,
so that the run may drop them in between. A file that appears after the first look and is dropped
before the second one is missed. So the copy is checked, and made again if a file is missing.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from resilient_scoop.journal.damage_check import CheckResult, Depth, check
from resilient_scoop.journal.export import backup
from resilient_scoop.journal.place import BLOB_FOLDER
from resilient_scoop.journal.result_files import FOLDER as RESULTS
from resilient_scoop.journal.state_store import FOLDER as STATES
from resilient_scoop.journal.view import JournalView

_FOLDERS: Final = (f"journal/{BLOB_FOLDER}", RESULTS, STATES)
_TRIES: Final = 5
may_be_in_it = re.compile(
    r"run\.json|input\.json|shown|script|decisions\.jsonl|journal/(?:data\.mdb|generation\.json|blobs/[0-9a-f]{64})"
    r"|payloads/(?:res|arg)-[0-9a-f]{32}|checkpoints/[0-9a-f]{64}"
).fullmatch
"""Whether a copy of a run may hold a file of this name."""


@contextmanager
def one_moment(run: Path) -> Iterator[Path]:
    """Yield a folder, beside the journal, with all that a run consists of at one moment.

    Raises:
        JournalDamagedError: the journal is damaged, or lacks a file that a record names.
    """
    stage = run / f".backup-{os.getpid()}"
    for rest in run.glob(".backup-*"):
        # A draft with our process id is of an earlier process: containers reuse ids.
        if rest == stage or not Path(f"/proc/{rest.name.rpartition('-')[2]}").exists():
            shutil.rmtree(rest, ignore_errors=True)
    try:
        for tries_left in reversed(range(_TRIES)):
            stage.mkdir(mode=0o700)
            verdict = _stage(run, stage)
            if verdict.sound:
                break
            if not tries_left:
                verdict.raise_if_damaged(run / "journal")
            shutil.rmtree(stage)  # a file that appeared and vanished between two scans
        yield stage
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def _stage(run: Path, stage: Path) -> CheckResult:
    for folder in _FOLDERS:
        (stage / folder).mkdir(mode=0o700, parents=True)
    _link(run, stage)
    with JournalView.open(run / "journal") as view:
        backup(view, stage / "data", blobs=False)
    for file in (stage / "data").iterdir():
        file.rename(stage / "journal" / file.name)
    (stage / "data").rmdir()
    _link(run, stage)
    for name in ("run.json", "input.json", "shown", "decisions.jsonl", "script"):
        if (run / name).exists():
            shutil.copyfile(run / name, stage / name)
    return check(stage / "journal", Depth.RECORDS)


def _link(run: Path, stage: Path) -> None:
    for folder in _FOLDERS:
        if not (run / folder).is_dir():
            continue
        for path in (run / folder).iterdir():
            if may_be_in_it(f"{folder}/{path.name}"):
                with suppress(FileExistsError, FileNotFoundError):
                    _share(path, stage / folder / path.name)


def _share(path: Path, copy: Path) -> None:
    """Put a file into the copy too: its content never changes."""
    try:
        os.link(path, copy)
    except (FileExistsError, FileNotFoundError):
        raise
    except OSError:  # a file system without links
        shutil.copyfile(path, copy)
