"""The journal on a real disk: kills, cut files, flipped bits, swapped records (ALWAYS-OPENS)."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import lmdb
import pytest

from resilient_scoop.core.events import Erase, Put, Table
from resilient_scoop.errors import JournalDamagedError
from resilient_scoop.journal.damage_check import Depth, check
from resilient_scoop.journal.journal import Journal
from resilient_scoop.journal.place import read_meta
from resilient_scoop.journal.repair import repair
from tests.integration.journal_process import PRELUDE, output_of, start

pytestmark = pytest.mark.real

RUN = b"r" * 16
PAGE_BYTES = 4096


def payload(turn: int, index: int) -> bytes:
    return b"%d.%d " % (turn, index) * (1 + (turn * 7 + index) % 90)


WRITER = (
    PRELUDE
    + """
from resilient_scoop.journal.committer import Committer
import threading
def payload(turn, index): return b"%d.%d " % (turn, index) * (1 + (turn * 7 + index) % 90)
journal = Journal.open(directory)
news = threading.Semaphore(0)
committer = Committer(journal, news.release)
turn = int(sys.argv[2])
told = turn
while True:
    for _ in range(3):
        turn += 1
        changes = [Put(Table.LOG, b"%08d.%d" % (turn, i), payload(turn, i)) for i in range(5)]
        if turn > 200: changes.append(Erase(Table.LOG, b"%08d" % (turn - 200)))
        if turn % 50 == 0: changes.append(Put(Table.ARGS, b"%08d" % turn, b"%08d" % turn * 200_000))
        if turn % 50 == 0: changes.append(Erase(Table.ARGS, b"%08d" % (turn - 100)))
        committer.put(turn, changes)
    news.acquire()
    if committer.committed > told:
        told = committer.committed
        os.write(1, b"%d\\n" % told)
"""
)


def missing(journal: Journal, last: int) -> list[int]:
    """Return the turns up to `last` that are missing or incomplete although they were not erased."""
    return [
        turn
        for turn in range(max(1, last - 199), last + 1)
        if journal.read(Table.LOG, b"%08d." % turn)
        != [(b"%08d.%d" % (turn, i), payload(turn, i)) for i in range(5)]
    ]


def test_a_kill_at_any_moment_loses_no_acknowledged_turn(tmp_path: Path) -> None:
    directory, chance = tmp_path / "journal", random.Random(1)
    Journal.create(directory, RUN).close(clean=True)
    acknowledged = 0
    for kill in range(24):
        # Given a writer that is killed in the middle of its work
        child = start(WRITER, directory, acknowledged)
        assert child.stdout is not None
        heard = child.stdout.readline()
        time.sleep(chance.uniform(0, 0.05))
        child.kill()
        heard += child.stdout.read()
        child.stdout.close()
        assert child.wait() == -signal.SIGKILL
        acknowledged = int(heard.splitlines()[-1])

        # Then the next opening finds every acknowledged turn complete, and no incomplete turn
        journal = Journal.open(directory, run=RUN)
        assert journal.generation == 2 * kill + 3
        last = int(journal.read(Table.LOG)[-1][0].partition(b".")[0])
        assert last >= acknowledged
        assert missing(journal, last) == []
        for key, value in journal.scan(Table.ARGS):
            assert value == key * 200_000
        files = len(list((directory / "blobs").iterdir())) if last >= 50 else 0
        assert files == journal.count(Table.ARGS)
        journal.close(clean=False)
        acknowledged = last


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A journal of 1.5 MB in the state that a killed writer leaves."""
    directory = tmp_path_factory.mktemp("original") / "journal"
    journal = Journal.create(directory, RUN)
    for turn in range(1, 400):
        journal.commit([Put(Table.LOG, b"%08d.%d" % (turn, i), payload(turn, i)) for i in range(5)])
        if turn > 200:
            journal.commit([Erase(Table.LOG, b"%08d" % (turn - 200))])
    journal.commit([Put(Table.CONST, b"large", b"large" * 300_000)])
    journal.close(clean=False)
    return directory


def cut_to(size_bytes: int) -> Callable[[bytearray, random.Random], None]:
    def cut(data: bytearray, _: random.Random) -> None:
        del data[size_bytes:]

    return cut


def cut_anywhere(data: bytearray, chance: random.Random) -> None:
    del data[chance.randrange(len(data)) :]


def flip_bits(data: bytearray, chance: random.Random) -> None:
    for _ in range(chance.choice((1, 10, 100))):
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)


def replace_page(data: bytearray, chance: random.Random) -> None:
    start = chance.randrange(len(data) // PAGE_BYTES) * PAGE_BYTES
    other = chance.randrange(len(data) // PAGE_BYTES) * PAGE_BYTES
    data[start : start + PAGE_BYTES] = chance.choice(
        (bytes(PAGE_BYTES), chance.randbytes(PAGE_BYTES), data[other : other + PAGE_BYTES])
    )


CUTS = [cut_to(size) for size in (0, 100, PAGE_BYTES, 2 * PAGE_BYTES, 3 * PAGE_BYTES, 100_000)]
DAMAGES = [(cut, 0) for cut in CUTS] + [
    (damage, seed)
    for damage in (cut_anywhere, flip_bits, replace_page)
    for seed in range(4 if damage is cut_anywhere else 12)
]

READ_ALL = """
try:
    journal = Journal.open(directory) if sys.argv[2] == "open" else Journal.view(directory)
    for table in Table:
        for key, value in journal.scan(table):
            if table is Table.LOG: say(key.decode(), len(value), value[:4])
    say("fine")
except JournalError as error:
    say(type(error).__name__, error)
"""


@pytest.mark.parametrize(("damage", "seed"), DAMAGES)
def test_damage_is_reported_and_never_gives_wrong_data_or_a_crash(
    original: Path, tmp_path: Path, damage: Callable[[bytearray, random.Random], None], seed: int
) -> None:
    # Given a data file that was changed outside
    whole = output_of(READ_ALL, shutil.copytree(original, tmp_path / "whole"), "view")
    assert whole[-2:] == ["fine", "exit 0"]
    data = bytearray((original / "data.mdb").read_bytes())
    damage(data, random.Random(seed))
    for way in ("view", "open"):
        directory = shutil.copytree(original, tmp_path / way)
        (directory / "data.mdb").write_bytes(data)

        # When it is opened, then the damage is reported, or every returned record is correct
        output = output_of(READ_ALL, directory, way)
        assert output[-1] == "exit 0"
        if output[-2] == "fine":
            assert output == whole
        else:
            assert output[-2].startswith("JournalDamagedError")
            assert set(output[:-2]) <= set(whole)
        assert len(data) == (original / "data.mdb").stat().st_size or output[-2] != "fine"


def raw_swap(directory: Path, first: bytes, second: bytes) -> None:
    """Exchange the values of two records, as a misdirected write would; LMDB does not notice it."""
    with lmdb.open(str(directory), max_dbs=20, lib_version=0) as env:
        table = env.open_db(b"log")
        with env.begin(write=True) as txn:
            values = txn.get(first, db=table), txn.get(second, db=table)
            assert values[0] is not None
            assert values[1] is not None
            txn.put(first, values[1], db=table)
            txn.put(second, values[0], db=table)


def test_swapped_records_are_named_with_table_and_key(original: Path, tmp_path: Path) -> None:
    directory = shutil.copytree(original, tmp_path / "journal")
    raw_swap(directory, b"00000300.1", b"00000300.2")

    with pytest.raises(JournalDamagedError, match=r"and 1 more.*verify") as caught:
        Journal.open(directory)
    assert (caught.value.table, caught.value.key) == ("log", b"00000300.1")

    with Journal.view(directory) as view, pytest.raises(JournalDamagedError) as caught:
        view.get(Table.LOG, b"00000300.2")
    assert (caught.value.table, caught.value.key) == ("log", b"00000300.2")


def test_a_lost_or_changed_file_of_a_large_payload_is_named(original: Path, tmp_path: Path) -> None:
    directory = shutil.copytree(original, tmp_path / "journal")
    (file,) = (directory / "blobs").iterdir()
    file.write_bytes(file.read_bytes()[::-1])
    assert check(directory, Depth.STRUCTURE).sound
    assert [problem.table for problem in check(directory, Depth.CONTENTS).problems] == ["const"]
    with Journal.view(directory) as view, pytest.raises(JournalDamagedError, match="has changed"):
        view.get(Table.CONST, b"large")
    file.unlink()
    with pytest.raises(JournalDamagedError, match=f"table const, key {b'large'.hex()}"):
        Journal.open(directory)


def test_an_older_copy_and_the_file_of_another_run_are_refused(
    original: Path, tmp_path: Path
) -> None:
    directory = shutil.copytree(original, tmp_path / "journal")
    Journal.open(directory).close(clean=True)
    shutil.copy(original / "data.mdb", directory)
    with pytest.raises(JournalDamagedError, match="an older copy"):
        Journal.open(directory)

    Journal.create(tmp_path / "other", b"o" * 16).close(clean=False)
    shutil.copy(tmp_path / "other" / "data.mdb", directory)
    for opening in (Journal.open, Journal.view):
        with pytest.raises(JournalDamagedError, match="run"):
            opening(directory)


def test_a_closed_file_that_is_sixty_bytes_shorter_is_reported_as_shortened(
    original: Path, tmp_path: Path
) -> None:
    directory = shutil.copytree(original, tmp_path / "journal")
    Journal.open(directory).close(clean=True)
    os.truncate(directory / "data.mdb", (directory / "data.mdb").stat().st_size - 60)
    with pytest.raises(JournalDamagedError, match="was cut"):
        Journal.open(directory)


def test_a_meta_page_that_names_an_older_state_is_detected(original: Path, tmp_path: Path) -> None:
    directory = shutil.copytree(original, tmp_path / "journal")
    newest = read_meta(directory).txn
    data = bytearray((directory / "data.mdb").read_bytes())
    at = (newest % 2) * PAGE_BYTES + 16 + 128
    assert int.from_bytes(data[at : at + 8], "little") == newest
    data[at : at + 8] = (newest - 2 * (newest // 4)).to_bytes(8, "little")
    (directory / "data.mdb").write_bytes(data)
    for opening in (Journal.open, Journal.view):
        with pytest.raises(JournalDamagedError, match="do not follow"):
            opening(directory)


@pytest.mark.parametrize(("damage", "seed"), [(CUTS[-1], 0), (replace_page, 3), (flip_bits, 5)])
def test_a_repair_keeps_every_record_that_can_be_read(
    original: Path, tmp_path: Path, damage: Callable[[bytearray, random.Random], None], seed: int
) -> None:
    # Given a journal with damage at one relevant position
    directory = shutil.copytree(original, tmp_path / "journal")
    data = bytearray((directory / "data.mdb").read_bytes())
    head = data[: 2 * PAGE_BYTES]
    damage(data, random.Random(seed))
    data[: 2 * PAGE_BYTES] = head
    (directory / "data.mdb").write_bytes(data)
    with pytest.raises(JournalDamagedError):
        Journal.open(directory)

    # When it is repaired, then the new journal is sound and has no record that the old one did not
    # have
    found = repair(directory, tmp_path / "repaired")
    assert check(tmp_path / "repaired", Depth.CONTENTS).sound
    assert found.lost
    with Journal.view(original) as whole, Journal.view(tmp_path / "repaired") as kept:
        assert kept.run == whole.run
        for table in (Table.LOG, Table.CONST):
            assert set(kept.scan(table)) <= set(whole.scan(table))
        assert found.kept["log"] == kept.count(Table.LOG)
        if damage is not CUTS[-1]:
            assert kept.count(Table.LOG) > 900
