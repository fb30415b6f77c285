"""Backups after a killed one, and during another one."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from resilient_scoop.errors import JournalError
from resilient_scoop.journal.backup import KEY_BYTES, read_manifest, write_backup
from tests.unit.cli_runs import journaled, new

KEY = bytes(KEY_BYTES)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return journaled(new(tmp_path / "state")).path


def test_a_backup_works_after_a_killed_one(run: Path, tmp_path: Path) -> None:
    """In a container, both have the same process id."""
    stage = run / f".backup-{os.getpid()}"
    (stage / "journal").mkdir(parents=True)
    target = tmp_path / "saved.tar"
    (tmp_path / "saved.tar.tmp").write_bytes(b"half" * 100_000)
    manifest = write_backup(run, target, KEY)
    assert read_manifest(target, KEY) == manifest
    assert not stage.exists()
    assert not (tmp_path / "saved.tar.tmp").exists()


def test_two_backups_do_not_write_one_file(run: Path, tmp_path: Path) -> None:
    draft = tmp_path / "saved.tar.tmp"
    with draft.open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(JournalError, match="another process writes it"):
            write_backup(run, tmp_path / "saved.tar", KEY)
        assert draft.exists()
