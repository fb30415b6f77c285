"""The copy that a compaction makes."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

import pytest

from resilient_scoop.core.events import Put, Table
from resilient_scoop.journal import copy
from resilient_scoop.journal.journal import Journal
from resilient_scoop.journal.place import DATA_FILE
from resilient_scoop.journal.store import open_store


def test_a_copy_uses_a_smaller_pipe_for_a_user_with_many_pipes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> int:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))  # `pipe-user-pages-soft` is used up

    journal = Journal.create(tmp_path / "journal", bytes(16))
    journal.commit([Put(Table.META, b"key", b"value")])
    journal.close(clean=True)
    store = open_store(tmp_path / "journal", tmp_path / "journal", readonly=True)
    monkeypatch.setattr(fcntl, "fcntl", refuse)
    (tmp_path / "copy").mkdir()
    copy.copy(store, tmp_path / "copy" / DATA_FILE)
    store.leave()
    copy.check_copy(tmp_path / "copy", tmp_path / "journal")
