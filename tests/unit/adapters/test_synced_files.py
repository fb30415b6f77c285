"""Files that must survive a power cut are written beside the old ones, synced, and then renamed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from resilient_scoop.adapters import synced_files


def test_a_file_is_replaced_as_a_whole_and_leaves_no_draft(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    path.write_bytes(b"old and longer")

    synced_files.write_synced(path, b"new")

    assert path.read_bytes() == b"new"
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_content_is_synced_before_its_name_and_the_name_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    path = tmp_path / "run.json"

    def note(fd: int) -> None:
        target = Path(f"/proc/self/fd/{fd}").readlink()
        done.append(f"{target.name} {path.exists()}")

    monkeypatch.setattr(os, "fsync", note)
    synced_files.write_synced(path, b"new")

    assert done == ["run.json.tmp False", f"{tmp_path.name} True"]


def test_a_failed_sync_leaves_the_old_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "run.json"
    path.write_bytes(b"old")

    def refuse(_: Any) -> None:
        raise OSError(5, "input/output error")

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(OSError, match="input"):
        synced_files.write_synced(path, b"new")

    assert path.read_bytes() == b"old"
