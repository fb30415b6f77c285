"""A run is copied as it is at one moment, while its processes make and remove files."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from resilient_scoop.core.events import Change, Erase, Put, Table
from resilient_scoop.errors import JournalDamagedError
from resilient_scoop.journal import moment
from resilient_scoop.journal.blobs import BlobStore
from resilient_scoop.journal.export import backup
from resilient_scoop.journal.journal import Journal
from resilient_scoop.journal.moment import one_moment
from resilient_scoop.journal.result_files import FOLDER, TAG, name_of
from resilient_scoop.journal.view import JournalView
from resilient_scoop.wire.payload_tags import FILE
from tests.unit.cli_runs import journaled, new

FILE_ID = bytes(range(16))
KEY = b"k" * 24


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return journaled(new(tmp_path)).path


def commit(run: Path, *changes: Change) -> None:
    journal = Journal.open(run / "journal")
    journal.commit(list(changes))
    journal.close(clean=True)


def make_result(run: Path) -> None:
    """Write a large result, and a record that names its file."""
    name = name_of(FILE_ID)
    ref = BlobStore(run / FOLDER).write([b"large"], name=name)
    commit(run, Put(Table.CONST, KEY, FILE + TAG + FILE_ID + ref.pack()))


def drop_result(run: Path) -> None:
    commit(run, Erase(Table.CONST, KEY))
    assert not (run / FOLDER / name_of(FILE_ID)).exists()


def live(run: Path, monkeypatch: pytest.MonkeyPatch, *, tries: int) -> None:
    """Make a result after the first look of a try, and remove it before the second one."""
    link, looks = moment._link, []

    def between(run: Path, stage: Path) -> None:
        looks.append(stage)
        if len(looks) > 2 * tries:
            link(run, stage)
        elif len(looks) % 2:
            link(run, stage)
            make_result(run)
        else:
            drop_result(run)
            link(run, stage)

    monkeypatch.setattr(moment, "_link", between)


def test_a_file_that_exists_only_between_two_looks_is_not_damage(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    live(run, monkeypatch, tries=2)
    with one_moment(run) as folder, JournalView.open(folder / "journal") as view:
        assert view.get(Table.CONST, KEY) is None


def test_a_file_that_is_removed_after_the_first_look_is_in_the_copy(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_result(run)
    done = []

    def drop_after(view: JournalView, target: Path, *, blobs: bool) -> None:
        backup(view, target, blobs=blobs)
        view.close()
        drop_result(run)
        done.append(target)

    monkeypatch.setattr(moment, "backup", drop_after)
    with one_moment(run) as folder:
        assert (folder / FOLDER / name_of(FILE_ID)).read_bytes() == b"large"
    assert len(done) == 1


def test_a_file_that_is_missing_each_time_is_damage_and_leaves_nothing(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_result(run)
    (run / FOLDER / name_of(FILE_ID)).unlink()
    with pytest.raises(JournalDamagedError, match=name_of(FILE_ID)), one_moment(run):
        pass
    assert list(run.glob(".*")) == []


def test_files_are_copied_if_links_are_not_possible(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_links(source: Path, target: Path) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    make_result(run)
    monkeypatch.setattr(os, "link", no_links)
    with one_moment(run) as folder:
        assert (folder / FOLDER / name_of(FILE_ID)).read_bytes() == b"large"
