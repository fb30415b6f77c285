"""Files of bundles: reading returns what was written, or nothing."""

from __future__ import annotations

import errno
import io
from pathlib import Path
from typing import Any

import pytest

from resilient_scoop.processes.agent.bundle_files import FOLDER, BundleFiles

BUNDLE = [b"outcome", b"", bytes(1000)]


def files_in(folder: Path) -> list[Path]:
    return sorted((folder / FOLDER).iterdir())


def test_bundles_are_read_unchanged(tmp_path: Path) -> None:
    files = BundleFiles(tmp_path)
    first, second = files.write(BUNDLE), files.write([])
    assert first is not None
    assert second is not None
    assert files.read(first) == BUNDLE
    assert files.read(second) == []


def test_other_users_cannot_read_the_folder(tmp_path: Path) -> None:
    BundleFiles(tmp_path).write(BUNDLE)
    assert (tmp_path / FOLDER).stat().st_mode & 0o777 == 0o700


def test_a_removed_file_does_not_exist(tmp_path: Path) -> None:
    files = BundleFiles(tmp_path)
    number = files.write(BUNDLE)
    assert number is not None
    files.remove(number)
    assert files_in(tmp_path) == []
    assert files.read(number) is None
    files.remove(number)


@pytest.mark.parametrize("left", [0, 10, 32, 33, -1], ids=str)
def test_a_file_that_is_too_short_is_not_used(tmp_path: Path, left: int) -> None:
    files = BundleFiles(tmp_path)
    number = files.write(BUNDLE)
    assert number is not None
    (path,) = files_in(tmp_path)
    path.write_bytes(path.read_bytes()[:left])
    assert files.read(number) is None


@pytest.mark.parametrize("at", [0, 31, 32, 500], ids=str)
def test_a_file_with_a_changed_byte_is_not_used(tmp_path: Path, at: int) -> None:
    files = BundleFiles(tmp_path)
    number = files.write(BUNDLE)
    assert number is not None
    (path,) = files_in(tmp_path)
    raw = bytearray(path.read_bytes())
    raw[at] ^= 1
    path.write_bytes(raw)
    assert files.read(number) is None


class FullDisk(io.BytesIO):
    """A file whose disk is full after some bytes."""

    def write(self, data: Any) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_is_reported_and_leaves_no_part_of_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = BundleFiles(tmp_path)
    first = files.write(BUNDLE)
    open_file = Path.open

    def open_full(path: Path, *args: Any, **more: Any) -> Any:
        open_file(path, *args, **more).close()
        return FullDisk()

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", open_full)
        assert files.write(BUNDLE) is None
    assert len(files_in(tmp_path)) == 1

    # When there is space again
    second = files.write([b"later"])
    assert second is not None
    assert first is not None
    assert files.read(second) == [b"later"]
    assert files.read(first) == BUNDLE


def test_a_folder_that_cannot_be_made_is_reported(tmp_path: Path) -> None:
    (tmp_path / FOLDER).write_text("in the way")
    assert BundleFiles(tmp_path).write(BUNDLE) is None
