"""A journal read by others: while it is written, after its processes died, without write permission."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from resilient_scoop.core.events import Erase, Put, Table
from resilient_scoop.errors import InvariantError, JournalDamagedError
from resilient_scoop.journal import damage_check, store
from resilient_scoop.journal import journal as journal_module
from resilient_scoop.journal.blobs import BLOB_BYTES_MIN
from resilient_scoop.journal.damage_check import CheckResult, Depth
from resilient_scoop.journal.journal import Journal

pytestmark = pytest.mark.real

RUN = b"r" * 16
LARGE = b"l" * (BLOB_BYTES_MIN + 1)


def number(value: int) -> bytes:
    return value.to_bytes(8, "big")


VIEWER = """
import sys
from pathlib import Path
from resilient_scoop.journal.journal import Journal
from resilient_scoop.core.events import Table
with Journal.view(Path(sys.argv[1])) as view:
    for line in sys.stdin:
        found = [int.from_bytes(key, "big") for key, _ in view.scan(Table.LOG)]
        assert found == list(range(len(found)))
        holder = view.holder()
        print(len(found), view.count(Table.LOG), holder and holder.pid, flush=True)
"""


def ask(child: subprocess.Popen[str]) -> str:
    assert child.stdin is not None
    assert child.stdout is not None
    child.stdin.write("\n")
    child.stdin.flush()
    return child.stdout.readline().strip()


def test_a_viewer_in_another_process_sees_each_commit_through_growth(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a journal whose memory map soon becomes too small, and a viewer
    monkeypatch.setattr(store, "MAP_BYTES", 1 << 20)
    journal = Journal.create(tmp_path / "journal", RUN)
    command = [sys.executable, "-c", VIEWER, str(tmp_path / "journal")]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with child:
        assert ask(child) == f"0 0 {os.getpid()}"

        # When it grows from 1 to 16 MiB and more
        for start in range(0, 3000, 100):
            records = [Put(Table.LOG, number(i), b"x" * 4000) for i in range(start, start + 100)]
            journal.commit(records)
            if start % 500 == 0:
                assert ask(child) == f"{start + 100} {start + 100} {os.getpid()}"

        # Then the viewer has seen every commit, also the last one
        journal.close(clean=True)
        assert ask(child) == "3000 3000 None"
        child.communicate(timeout=30)
    assert child.returncode == 0


def test_threads_read_while_the_journal_is_written_and_grows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "MAP_BYTES", 1 << 20)
    journal = Journal.create(tmp_path / "journal", RUN)
    seen: list[int] = []
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            found = journal.read(Table.LOG)
            assert [key for key, _ in found] == [number(i) for i in range(len(found))]
            seen.append(len(found))

    thread = threading.Thread(target=read)
    thread.start()
    for i in range(0, 2000, 10):
        journal.commit([Put(Table.LOG, number(j), b"x" * 4000) for j in range(i, i + 10)])
    done.set()
    thread.join()
    assert seen == sorted(seen)
    assert len(seen) > 3
    journal.close(clean=True)


def test_views_in_the_writers_own_process_share_its_environment(tmp_path: Path) -> None:
    journal = Journal.create(tmp_path / "journal", RUN)
    with Journal.view(tmp_path / "journal") as first, Journal.view(tmp_path / "journal") as second:
        journal.commit([Put(Table.LOG, b"k", b"v")])
        assert first.get(Table.LOG, b"k") == second.get(Table.LOG, b"k") == b"v"
    journal.commit([Put(Table.LOG, b"k", b"w")])
    journal.close(clean=True)
    with Journal.view(tmp_path / "journal") as first, Journal.view(tmp_path / "journal") as second:
        assert first.get(Table.LOG, b"k") == second.get(Table.LOG, b"k") == b"w"
        assert first.holder() is None
    Journal.open(tmp_path / "journal").close(clean=True)


@contextlib.contextmanager
def only_readable(directory: Path) -> Iterator[None]:
    """Remove the write permission; for root, who may write anywhere, with a read-only mount."""
    if os.geteuid() != 0:
        directory.chmod(0o500)
        yield
        directory.chmod(0o700)
        return
    place = str(directory)
    if subprocess.run(["mount", "--bind", place, place], check=False).returncode != 0:
        pytest.skip("root without the right to mount")
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", place], check=True)
        yield
    finally:
        subprocess.run(["umount", "-l", place], check=True)


def test_a_read_only_folder_is_read_from_a_copy(tmp_path: Path) -> None:
    # Given the journal of a dead run, in a folder without write permission
    directory = tmp_path / "journal"
    journal = Journal.create(directory, RUN)
    journal.commit([Put(Table.LOG, number(i), b"v") for i in range(10)])
    journal.commit([Put(Table.CONST, b"large", LARGE)])
    journal.close(clean=False)
    (directory / "lock.mdb").unlink()
    before = sorted(file.name for file in directory.iterdir())

    # When it is viewed, then all records are there and nothing was written
    with only_readable(directory), Journal.view(directory) as view:
        assert view.count(Table.LOG) == 10
        assert view.get(Table.CONST, b"large") == LARGE
        assert view.size_bytes() > len(LARGE)
        assert view.holder() is None
    assert sorted(file.name for file in directory.iterdir()) == before


def test_files_of_large_payloads_are_removed_with_their_last_record(tmp_path: Path) -> None:
    files = tmp_path / "journal" / "blobs"
    journal = Journal.create(tmp_path / "journal", RUN)
    journal.commit([Put(Table.ARGS, b"a", LARGE), Put(Table.LOG, b"b", LARGE)])
    assert len(list(files.iterdir())) == 1

    journal.commit([Erase(Table.ARGS, b"a")])
    assert journal.get(Table.LOG, b"b") == LARGE

    journal.commit([Erase(Table.LOG, b"b"), Put(Table.LOG, b"b", LARGE)])
    assert journal.get(Table.LOG, b"b") == LARGE

    journal.commit([Erase(Table.LOG, b"")])
    assert list(files.iterdir()) == []
    journal.close(clean=True)


def test_files_that_no_commit_names_are_removed_at_the_next_opening(tmp_path: Path) -> None:
    journal = Journal.create(tmp_path / "journal", RUN)
    journal.commit([Put(Table.ARGS, b"a", LARGE)])
    journal.close(clean=False)
    files = tmp_path / "journal" / "blobs"
    (files / ("0" * 64)).write_bytes(b"of a commit that never was")
    (files / "1-1.tmp").write_bytes(b"half")

    journal = Journal.open(tmp_path / "journal")
    assert len(list(files.iterdir())) == 1
    assert journal.get(Table.ARGS, b"a") == LARGE
    journal.close(clean=True)


def test_only_a_file_that_was_not_closed_normally_is_verified_in_a_child(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked: list[str] = []
    check = damage_check.check

    def noted(directory: Path, depth: Depth, *, states: bool = True) -> CheckResult:
        checked.append(depth.name)
        return check(directory, depth, states=states)

    monkeypatch.setattr(journal_module, "check", noted)
    Journal.create(tmp_path / "journal", RUN).close(clean=True)
    Journal.open(tmp_path / "journal").close(clean=False)
    assert checked == []
    Journal.open(tmp_path / "journal").close(clean=True)
    assert checked == ["STRUCTURE"]


def test_a_forked_child_may_not_write(tmp_path: Path) -> None:
    journal = Journal.create(tmp_path / "journal", RUN)
    child = os.fork()
    if child == 0:
        try:
            journal.commit([Put(Table.LOG, b"k", b"child")])
        except InvariantError:
            os._exit(7)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    journal.commit([Put(Table.LOG, b"k", b"parent")])
    assert journal.get(Table.LOG, b"k") == b"parent"
    journal.close(clean=True)


@pytest.mark.parametrize("pages", [1, 10, 250])
@pytest.mark.parametrize("clean", [True, False])
def test_a_file_shortened_by_whole_pages_does_not_kill_its_reader(
    tmp_path: Path, *, pages: int, clean: bool
) -> None:
    # Given a journal too large to be checked byte by byte, which was shortened by whole pages
    directory = tmp_path / "journal"
    journal = Journal.create(directory, RUN)
    for start in range(0, 4000, 500):
        journal.commit([Put(Table.LOG, number(start + i), b"x" * 3000) for i in range(500)])
    journal.close(clean=clean)
    data = directory / "data.mdb"
    size_bytes = data.stat().st_size - 4096 * pages
    os.truncate(data, size_bytes)
    look = """
import sys
from pathlib import Path
from resilient_scoop.journal.journal import Journal
from resilient_scoop.core.events import Table
from resilient_scoop.errors import JournalDamagedError
try:
    with Journal.view(Path(sys.argv[1])) as view: print(len(list(view.scan(Table.LOG))))
except JournalDamagedError as error: print(error)
"""

    # When it is viewed, then all records are there, or the damage is reported with advice
    command = [sys.executable, "-c", look, str(directory)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done
    assert done.stdout == "4000\n" or "rscoop journal repair" in done.stdout
    assert (done.stdout == "4000\n") == (pages == 1), (
        "the last page is one of the list of free ones"
    )

    # And opening it for writing is refused, and changes nothing
    with pytest.raises(JournalDamagedError):
        Journal.open(directory)
    assert data.stat().st_size == size_bytes
