"""The free space of a file system as text."""

from __future__ import annotations

import os
from types import SimpleNamespace

import pytest

from resilient_scoop.adapters.free_space import free_text


@pytest.mark.parametrize(
    ("files", "free", "text"),
    [
        (48, 0, "4.1 kB free, but no inodes: it holds as many files as it can"),
        (48, 1, "4.1 kB free"),
        (0, 0, "4.1 kB free"),  # a file system that does not count files, such as btrfs
    ],
)
def test_used_up_inodes_are_named_beside_the_free_space(
    monkeypatch: pytest.MonkeyPatch, files: int, free: int, text: str
) -> None:
    found = SimpleNamespace(f_bavail=1, f_frsize=4096, f_files=files, f_favail=free)
    monkeypatch.setattr(os, "statvfs", lambda _: found)
    assert free_text("/") == text
