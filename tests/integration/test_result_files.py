"""Files of large results exist as long as a record names them, and no longer."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from resilient_scoop.core.events import Erase, Put, Table
from resilient_scoop.journal import result_files
from resilient_scoop.journal.blobs import BLOB_BYTES_MIN
from resilient_scoop.journal.damage_check import Depth, check
from resilient_scoop.journal.journal import Journal
from resilient_scoop.payload.files import LargeStore
from resilient_scoop.wire.messages import Outcome, Outcomes, encode
from tests.integration.runs import Place

pytestmark = pytest.mark.real

RUN = b"r" * 16


def outcome(*payloads: bytes) -> bytes:
    """Return a record as the broker logs it."""
    return encode(Outcomes("0", [Outcome(0, 0, b"f" * 16, b"d" * 8, list(payloads), [])]))


class Folder:
    """A run's folder with a journal and large results."""

    def __init__(self, path: Path) -> None:
        self.journal = Journal.create(path / "journal", RUN)
        self.files = path / "payloads"
        self.store = LargeStore(self.files)

    def result(self, content: bytes = b"large") -> bytes:
        return b"B" + self.store.put([content], True)

    def count(self) -> int:
        return len(list(self.files.glob("res-*")))


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def test_a_file_is_removed_with_the_last_record_that_names_it(folder: Folder) -> None:
    first, second = folder.result(), folder.result()
    assert folder.count() == 2  # although they are equal: each belongs to one process
    folder.journal.commit(
        [
            Put(Table.LOG, b"a1", outcome(b"\x80small", first)),
            Put(Table.LOG, b"b1", outcome(first)),
            Put(Table.CONST, b"c", second),
        ]
    )
    folder.journal.commit([Erase(Table.LOG, b"a")])
    assert folder.count() == 2
    folder.journal.commit([Erase(Table.LOG, b"b")])
    assert folder.count() == 1
    assert bytes(folder.store.get(second[1:])) == b"large"
    folder.journal.commit([Erase(Table.CONST, b"c")])
    assert folder.count() == 0
    folder.journal.close(clean=True)


def test_a_record_stored_in_a_file_can_name_other_files(folder: Folder) -> None:
    name = folder.result()
    folder.journal.commit([Put(Table.LOG, b"a", outcome(name, bytes(BLOB_BYTES_MIN)))])
    folder.journal.close(clean=False)
    folder.journal = Journal.open(folder.journal.directory)
    assert folder.count() == 1
    folder.journal.commit([Erase(Table.LOG, b"a")])
    assert folder.count() == 0
    folder.journal.close(clean=True)


def test_a_replaced_record_keeps_files_that_both_records_name(folder: Folder) -> None:
    kept, gone = folder.result(), folder.result()
    folder.journal.commit([Put(Table.LOG, b"a", outcome(kept, gone))])
    folder.journal.commit([Erase(Table.LOG, b"a"), Put(Table.LOG, b"a", outcome(kept))])
    assert folder.count() == 1
    assert bytes(folder.store.get(kept[1:])) == b"large"
    folder.journal.close(clean=True)


def test_dropped_records_of_a_run_that_keeps_its_history_keep_their_files(folder: Folder) -> None:
    name = folder.result()
    folder.journal.keep_history = True
    folder.journal.commit([Put(Table.LOG, b"a", outcome(name)), Put(Table.ARGS, b"a", b"args")])
    folder.journal.commit([Erase(Table.LOG, b"a"), Erase(Table.ARGS, b"a")])
    assert folder.journal.read(Table.LOG) == folder.journal.read(Table.ARGS) == []
    assert folder.journal.read(Table.HISTORY) == [(b"\x01a", outcome(name))]
    assert folder.count() == 1
    folder.journal.compact()
    assert folder.journal.read(Table.HISTORY) == [(b"\x01a", outcome(name))]
    folder.journal.commit([Erase(Table.HISTORY, b"")])
    assert folder.count() == 0
    folder.journal.close(clean=True)


def test_names_added_and_removed_during_a_compaction_are_correct_after_it(folder: Folder) -> None:
    early, late, gone = folder.result(), folder.result(), folder.result()
    folder.journal.commit(
        [Put(Table.LOG, b"a", outcome(early)), Put(Table.LOG, b"b", outcome(gone))]
    )
    (folder.journal.directory / "compact.wanted").touch()
    folder.journal.tend()
    folder.journal.commit([Put(Table.LOG, b"c", outcome(late)), Erase(Table.LOG, b"b")])
    until = time.monotonic() + 60
    while not folder.journal.data:
        assert time.monotonic() < until
        folder.journal.tend()
    assert folder.count() == 2
    folder.journal.commit([Erase(Table.LOG, b"a"), Erase(Table.LOG, b"c")])
    assert folder.count() == 0
    folder.journal.close(clean=True)


def test_unnamed_result_files_are_swept_when_old_enough(folder: Folder) -> None:
    named, fresh, old = folder.result(), folder.result(), folder.result()
    folder.journal.commit([Put(Table.LOG, b"a", outcome(named))])
    for name in (named, old):
        path = folder.files / result_files.unpack(name[1:])[1]
        made_at = path.stat().st_mtime
        os.utime(path, (made_at - 7200, made_at - 7200))
    assert folder.journal.sweep_files() == 1
    assert bytes(folder.store.get(fresh[1:])) == b"large"
    assert result_files.sweep(folder.files, folder.journal.names_file, all_ages=True) == 1
    assert bytes(folder.store.get(named[1:])) == b"large"
    folder.journal.close(clean=True)


def test_a_lost_or_changed_result_is_named_by_a_check(folder: Folder) -> None:
    name = folder.result()
    folder.journal.commit([Put(Table.LOG, b"a", outcome(b"\x80", name))])
    folder.journal.close(clean=True)
    directory = folder.journal.directory
    (file,) = folder.files.glob("res-*")
    file.write_bytes(b"lArge")
    assert check(directory, Depth.RECORDS).sound
    (problem,) = check(directory, Depth.CONTENTS).problems
    assert (problem.table, problem.key) == ("log", b"a".hex())
    file.unlink()
    (problem,) = check(directory, Depth.RECORDS).problems
    assert "No such file" in problem.text


SCRIPT = """
import sys
from resilient_scoop import futures

def big(n):
    return [bytes([n]) * 2_000_000]

def parent(n):
    return sum(len(part[0]) for part in futures.map(big, range(4)))

if __name__ == "__main__":
    print(sum(futures.map(parent, range(3))))
    print(len(futures.submit(big, 7).result()[0]))
"""


@pytest.mark.parametrize("keep", [False, True])
def test_outcomes_below_ended_parents_are_dropped(
    tmp_path: Path, state_dir: Path, *, keep: bool
) -> None:
    place = Place(tmp_path, state_dir)
    place.write(SCRIPT)
    flags = ["--keep-history"] if keep else []
    out = place.rscoop("run", "-q", "-n", "2", *flags, "script.py").expect()
    assert out == "24000000\n2000000\n"
    (run,) = place.runs()
    assert len(list((run / "payloads").glob("res-*"))) == (13 if keep else 1)
    assert list((run / "payloads").glob("arg-*")) == []
    assert check(run / "journal", Depth.CONTENTS).sound
    place.rscoop("resume", "last").expect()
    place.assert_nothing_left()
