"""Where a journal may be, and which process may hold it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from resilient_scoop.core.events import Put, Table
from resilient_scoop.errors import (
    JournalDamagedError,
    JournalFormatError,
    JournalPlaceError,
    RunBusyError,
)
from resilient_scoop.journal import writer_lock
from resilient_scoop.journal.journal import Journal
from resilient_scoop.journal.place import (
    GENERATION_FILE,
    NETWORK_TYPES,
    check_place,
    file_system_type,
    lengthen,
    read_meta,
    refuse_network,
)

RUN = b"r" * 16


@pytest.mark.parametrize("mode", [0o770, 0o702])
def test_a_folder_that_others_may_write_to_is_refused(tmp_path: Path, mode: int) -> None:
    Journal.create(tmp_path / "journal", RUN).close(clean=True)
    (tmp_path / "journal").chmod(mode)
    for opening in (Journal.open, Journal.view):
        with pytest.raises(JournalPlaceError, match=f"mode {mode:04o}.*chmod 700"):
            opening(tmp_path / "journal")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs the right to give a folder away")
def test_a_folder_of_another_user_is_refused(tmp_path: Path) -> None:
    Journal.create(tmp_path / "journal", RUN).close(clean=True)
    os.chown(tmp_path / "journal", 65534, 65534)
    with pytest.raises(JournalPlaceError, match="belongs to user 65534"):
        Journal.open(tmp_path / "journal")


@pytest.mark.parametrize(("type_id", "name"), NETWORK_TYPES.items())
def test_network_and_fuse_file_systems_are_refused_with_advice(type_id: int, name: str) -> None:
    with pytest.raises(JournalPlaceError, match=f"is on {name}, .*choose a local disk"):
        refuse_network(Path("/there"), type_id)


def test_a_local_file_system_is_known_as_one(tmp_path: Path) -> None:
    assert file_system_type(Path("/proc")) == 0x9FA0
    refuse_network(tmp_path, 0xEF53)
    check_place(tmp_path, allow_network=True)


def test_a_second_opening_is_refused_and_names_the_holder(tmp_path: Path) -> None:
    journal = Journal.create(tmp_path / "journal", RUN)
    with pytest.raises(RunBusyError, match=f"process {os.getpid()} on ") as caught:
        Journal.open(tmp_path / "journal")
    assert (caught.value.pid, caught.value.exit_code) == (os.getpid(), 73)
    found = writer_lock.holder(tmp_path / "journal")
    assert found is not None
    assert (found.pid, found.boot_id) == (os.getpid(), writer_lock.boot_id())

    journal.close(clean=True)
    assert writer_lock.holder(tmp_path / "journal") is None
    Journal.open(tmp_path / "journal").close(clean=True)


def test_a_folder_without_journal_is_reported(tmp_path: Path) -> None:
    with pytest.raises(JournalFormatError, match="no such directory"):
        Journal.open(tmp_path / "nothing")
    (tmp_path / "empty").mkdir(mode=0o700)
    for opening in (Journal.open, Journal.view):
        with pytest.raises(JournalFormatError, match=r"no generation\.json"):
            opening(tmp_path / "empty")


def test_a_journal_is_not_made_over_another(tmp_path: Path) -> None:
    Journal.create(tmp_path / "journal", RUN).close(clean=True)
    with pytest.raises(JournalFormatError, match="a journal already"):
        Journal.create(tmp_path / "journal", RUN)


def test_the_journal_of_another_run_or_format_is_refused(tmp_path: Path) -> None:
    directory = tmp_path / "journal"
    Journal.create(directory, RUN).close(clean=True)
    with pytest.raises(JournalFormatError, match=f"run {RUN.hex()}, not to {(b'x' * 16).hex()}"):
        Journal.open(directory, run=b"x" * 16)

    second = directory / GENERATION_FILE
    second.write_text(second.read_text().replace('"format":1', '"format":9'))
    with pytest.raises(JournalFormatError, match="format is 9, this version reads up to 1"):
        Journal.open(directory)
    second.write_text("{")
    with pytest.raises(JournalDamagedError, match=GENERATION_FILE):
        Journal.open(directory)


def test_a_refused_opening_leaves_no_lock(tmp_path: Path) -> None:
    directory = tmp_path / "journal"
    Journal.create(directory, RUN).close(clean=True)
    for _ in range(3):
        with pytest.raises(JournalFormatError):
            Journal.open(directory, run=b"x" * 16)
    Journal.open(directory, run=RUN).close(clean=True)


def test_only_its_owner_can_read_a_journal(tmp_path: Path) -> None:
    directory = tmp_path / "journal"
    Journal.create(directory, RUN).close(clean=True)
    assert directory.stat().st_mode & 0o777 == 0o700
    assert {file.stat().st_mode & 0o077 for file in directory.iterdir()} == {0}


def test_a_file_without_its_never_written_last_pages_is_sound(tmp_path: Path) -> None:
    # Given a journal whose last pages were allocated and freed within one transaction
    journal = Journal.create(tmp_path / "journal", bytes(16))
    journal.commit([Put(Table.LOG, b"%04d" % n, bytes(900)) for n in range(400)])
    journal.close(clean=False)
    data = tmp_path / "journal" / "data.mdb"
    meta = read_meta(tmp_path / "journal")
    whole = data.read_bytes()
    last = (meta.last_page).to_bytes(8, "little") + meta.txn.to_bytes(8, "little")
    more = (meta.last_page + 3).to_bytes(8, "little") + meta.txn.to_bytes(8, "little")
    assert whole.count(last) == 1
    data.write_bytes(whole.replace(last, more))

    # Then it does not count as shortened, and the next writer completes it
    meta = read_meta(tmp_path / "journal")
    assert data.stat().st_size < meta.size_bytes
    lengthen(tmp_path / "journal", meta)
    assert data.stat().st_size == meta.size_bytes

    # And a file that lacks a part of a page, or very many pages, counts as shortened
    os.truncate(data, data.stat().st_size - 60)
    with pytest.raises(JournalDamagedError, match="was cut"):
        read_meta(tmp_path / "journal")
