"""A compacted copy replaces a data file while it is written and read (ALWAYS-OPENS)."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from resilient_scoop.core.events import Change, Erase, Put, Table
from resilient_scoop.errors import JournalError
from resilient_scoop.journal import compact, upkeep
from resilient_scoop.journal import journal as journal_module
from resilient_scoop.journal.blobs import BLOB_BYTES_MIN
from resilient_scoop.journal.damage_check import Depth, check
from resilient_scoop.journal.journal import Journal
from resilient_scoop.journal.place import GenerationFile, read_generation, write_generation
from resilient_scoop.journal.upkeep import REFUSED_FILE, WANTED_FILE

pytestmark = pytest.mark.real

RUN = b"r" * 16
LIMIT_S = 60.0


def key(turn: int, index: int) -> bytes:
    return b"%08d.%04d" % (turn, index)


def filled(directory: Path, turns: int = 60, kept: int = 20, size_bytes: int = 700) -> Journal:
    """Return a journal with a third of its space in use, and files of large payloads."""
    journal = Journal.create(directory, RUN)
    for turn in range(turns):
        journal.commit([Put(Table.LOG, key(turn, i), b"%d" % turn * size_bytes) for i in range(50)])
    large = b"l" * (BLOB_BYTES_MIN + 1)
    journal.commit([Put(Table.ARGS, b"a", large), Put(Table.ARGS, b"b", large + b"b")])
    journal.commit([Erase(Table.LOG, b"%08d" % turn) for turn in range(turns - kept)])
    return journal


def tend_until(journal: Journal, holds: Callable[[], bool], between: Callable[[], None]) -> None:
    until = time.monotonic() + LIMIT_S
    while not holds():
        assert time.monotonic() < until, list(journal.notes)
        journal.tend()
        between()


def content(journal: Journal) -> dict[tuple[Table, bytes], bytes]:
    return {(table, k): v for table in Table for k, v in journal.scan(table)}


@pytest.fixture(autouse=True)
def _small_ones_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upkeep, "COMPACT_BYTES_MIN", 1 << 16)


def test_a_half_empty_journal_is_compacted_automatically_and_keeps_every_commit(
    tmp_path: Path,
) -> None:
    # Given a journal that is mostly free space, a view of it, and a double with the expected
    # content
    directory, chance = tmp_path / "journal", random.Random(1)
    journal = filled(directory)
    before_bytes = journal.size_bytes()
    expected = content(journal)
    turn = [100]

    def commit(changes: list[Change]) -> None:
        for change in changes:
            if isinstance(change, Put):
                expected[change.table, change.key] = change.value
            else:
                for place in [p for p in expected if p[0] is change.table]:
                    if place[1].startswith(change.prefix):
                        del expected[place]
        journal.commit(changes)

    def some_commit() -> None:
        turn[0] += 1
        changes: list[Change] = [Put(Table.LOG, key(turn[0], i), b"new") for i in range(9)]
        changes.append(Erase(Table.LOG, b"%08d" % chance.randrange(40, turn[0])))
        changes.append(Put(Table.LOG, key(chance.randrange(40, 60), 7), b"put again"))
        if turn[0] % 9 == 0:
            changes += [Erase(Table.ARGS, b""), Put(Table.ARGS, b"b", b"b" * (BLOB_BYTES_MIN + 1))]
        commit(changes)

    # When upkeep runs between commits of all kinds
    with Journal.view(directory) as view:
        tend_until(journal, lambda: journal.data == "compact-1", some_commit)
        some_commit()

        # Then the small new file has exactly the expected content, and the view uses it
        expected[Table.META, b"generation"] = journal.get(Table.META, b"generation") or b""
        assert content(journal) == expected
        assert {(Table.LOG, k): v for k, v in view.scan(Table.LOG)} == {
            place: value for place, value in expected.items() if place[0] is Table.LOG
        }
    assert journal.size_bytes() < before_bytes / 1.5
    assert not journal.notes
    journal.close(clean=True)
    assert not (directory / "data.mdb").exists()
    assert not (directory / "lock.mdb").exists()
    assert check(directory, Depth.CONTENTS).sound
    assert len(list((directory / "blobs").iterdir())) == 1

    # And it is opened, written and compacted again
    journal = Journal.open(directory, run=RUN)
    assert content(journal) | {(Table.META, b"generation"): b""} == expected | {
        (Table.META, b"generation"): b""
    }
    journal.compact()
    assert journal.data == "compact-2"
    assert sorted(path.name for path in directory.glob("compact-*")) == ["compact-2"]
    journal.close(clean=True)
    assert check(directory, Depth.CONTENTS).sound


def test_a_small_or_mostly_used_journal_is_not_compacted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = filled(tmp_path / "full", kept=50)
    for _ in range(3):
        assert journal.tend() == upkeep.LOOK_S
    journal.close(clean=True)
    monkeypatch.setattr(upkeep, "COMPACT_BYTES_MIN", 16 << 20)
    journal = filled(tmp_path / "small", kept=1)
    for _ in range(3):
        assert journal.tend() == upkeep.LOOK_S
    assert journal.data == ""
    journal.close(clean=True)


def test_a_compaction_request_is_carried_out_or_answered_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = tmp_path / "journal"
    journal = filled(directory, kept=60)
    (directory / WANTED_FILE).touch()
    tend_until(journal, lambda: not (directory / WANTED_FILE).exists(), lambda: None)
    assert journal.data == "compact-1"
    assert not (directory / REFUSED_FILE).exists()

    monkeypatch.setattr(compact, "NOTED_MAX", 10)
    (directory / WANTED_FILE).touch()
    more = [Put(Table.LOG, key(900, i), b"v") for i in range(20)]
    tend_until(
        journal,
        lambda: not (directory / WANTED_FILE).exists(),
        lambda: journal.commit(more),
    )
    assert "faster than" in (directory / REFUSED_FILE).read_text()
    assert journal.data == "compact-1"
    assert len(journal.notes) == 1
    journal.close(clean=True)


def test_a_journal_closed_during_a_compaction_leaves_no_copy(tmp_path: Path) -> None:
    directory = tmp_path / "journal"
    journal = filled(directory)
    journal.tend()
    assert (directory / "compact-1").is_dir()
    journal.close(clean=True)
    assert not (directory / "compact-1").exists()
    assert read_generation(directory).data == ""
    assert check(directory, Depth.CONTENTS).sound


def test_damage_that_could_be_repaired_is_never_copied(tmp_path: Path) -> None:
    # Given records with a flipped bit
    directory = tmp_path / "journal"
    filled(directory).close(clean=True)
    data = (directory / "data.mdb").read_bytes()
    (directory / "data.mdb").write_bytes(data.replace(b"59" * 300, b"59" * 299 + b"58"))
    journal = Journal.open(directory)  # small and closed normally: records are not checked

    # When it should be compacted, then this is given up, and reported once
    until = time.monotonic() + LIMIT_S
    while not journal.notes:
        assert time.monotonic() < until
        journal.tend()
    assert "table log" in journal.notes[0]
    assert "verify" in journal.notes[0]
    assert journal.data == ""
    assert not (directory / "compact-1").exists()
    with pytest.raises(JournalError, match="compacting failed: table log"):
        journal.compact()
    journal.commit([Put(Table.LOG, b"k", b"v")])
    assert journal.get(Table.LOG, b"k") == b"v"
    journal.close(clean=False)


@pytest.mark.parametrize("renamed", [False, True])
def test_a_failed_swap_is_given_up_only_if_the_old_file_is_the_current_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, renamed: bool
) -> None:
    directory = tmp_path / "journal"
    journal = filled(directory)

    def failing(where: Path, known: GenerationFile) -> None:
        if renamed:
            write_generation(where, known)  # and then the sync of the folder fails
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(journal_module, "write_generation", failing)
    if renamed:
        with pytest.raises(JournalError, match="Input/output"):
            journal.compact()
        with pytest.raises(JournalError, match="Input/output"):
            journal.commit([Put(Table.LOG, b"k", b"v")])
        monkeypatch.undo()
        journal.close(clean=False)
        journal = Journal.open(directory)
        assert journal.data == "compact-1"
    else:
        with pytest.raises(JournalError, match="Input/output"):
            journal.compact()
        monkeypatch.undo()
        journal.commit([Put(Table.LOG, b"k", b"v")])
        assert journal.data == ""
        assert not (directory / "compact-1").exists()
    assert journal.count(Table.LOG) == 1000 + (not renamed)
    journal.close(clean=True)


def test_threads_and_processes_continue_to_read_while_files_are_swapped(tmp_path: Path) -> None:
    # Given readers in this process and in another one
    directory = tmp_path / "journal"
    journal = filled(directory)
    done = threading.Event()
    counts: list[int] = []

    def read() -> None:
        while not done.is_set():
            found = journal.read(Table.LOG, b"0000005")
            assert len(found) == 500
            assert journal.get(Table.LOG, key(59, 0)) == b"59" * 700
            counts.append(len(found))

    threads = [threading.Thread(target=read) for _ in range(2)]
    for thread in threads:
        thread.start()
    command = [sys.executable, "-c", VIEWER, str(directory)]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "begin\n"

    # When the file is swapped several times
    for number in range(8):
        journal.compact()
        journal.commit([Put(Table.EVENT, b"%d" % number, b"v")])
    journal.commit([Put(Table.EVENT, b"end", b"v")])
    done.set()
    for thread in threads:
        thread.join()

    # Then all reads were consistent, and the other process saw the last commit
    out, _ = child.communicate(timeout=LIMIT_S)
    assert child.returncode == 0, out
    assert out == "end\n"
    assert len(counts) > 8
    journal.close(clean=True)


VIEWER = """
import sys, time
from pathlib import Path
from resilient_scoop.journal.journal import Journal
from resilient_scoop.core.events import Table
print("begin", flush=True)
until = time.monotonic() + 60
with Journal.view(Path(sys.argv[1])) as kept:
    while kept.get(Table.EVENT, b"end") is None:
        assert time.monotonic() < until
        assert len(kept.read(Table.LOG, b"0000005")) == 500
        with Journal.view(Path(sys.argv[1])) as fresh:
            assert len(fresh.read(Table.LOG, b"0000005")) == 500
            assert len(list(fresh.scan(Table.LOG))) == 1000
print("end")
"""
