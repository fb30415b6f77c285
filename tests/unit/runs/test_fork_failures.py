"""A fork that fails leaves nothing behind, and does not change its source."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from resilient_scoop.core.events import Change
from resilient_scoop.errors import JournalFullError
from resilient_scoop.journal.journal import Journal
from resilient_scoop.runs import fork
from resilient_scoop.runs.folder import RunDir
from tests.unit.cli_runs import journaled, new, rscoop


@pytest.fixture
def source(tmp_path: Path) -> RunDir:
    run = journaled(new(tmp_path))
    payloads = run.path / "payloads"
    payloads.mkdir()
    (payloads / f"res-{0:032x}").write_bytes(b"x" * 100)
    return run


def files(folder: Path) -> dict[str, int]:
    return {f"{path.relative_to(folder)}": path.stat().st_nlink for path in folder.rglob("*")}


def full_at_commit(journal: Journal, changes: list[Change]) -> None:
    raise JournalFullError(str(journal.directory), "a commit", "no space left on device")


def full_at_copy(source: Path, target: Path) -> None:
    Path(target).write_bytes(b"half")
    raise OSError(errno.ENOSPC, "No space left on device", f"{target}")


def no_links(source: Path, target: Path) -> None:
    raise OSError(errno.EXDEV, "Invalid cross-device link")


@pytest.mark.parametrize("where", ["commit", "copy"])
def test_a_fork_on_a_full_disk_leaves_nothing(
    where: str, source: RunDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = files(tmp_path)
    if where == "commit":
        monkeypatch.setattr(Journal, "commit", full_at_commit)
    else:
        monkeypatch.setattr(os, "link", no_links)
        monkeypatch.setattr(shutil, "copyfile", full_at_copy)

    done = rscoop(tmp_path, "fork", "last")

    assert done.exit_code != 0
    assert done.stdout == ""
    assert files(tmp_path) == before


def test_a_fork_leaves_nothing_when_its_source_vanishes(
    source: RunDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = fork.Fork.changes

    def vanishing(fork: fork.Fork) -> Iterator[Change]:
        for number, change in enumerate(changes(fork)):
            if number == 3:
                shutil.rmtree(source.path)
                raise OSError(errno.ENOENT, "No such file or directory", f"{source.journal}")
            yield change

    monkeypatch.setattr(fork.Fork, "changes", vanishing)
    done = rscoop(tmp_path, "fork", "last")
    assert done.exit_code != 0
    assert files(tmp_path) == {"runs": 2}
