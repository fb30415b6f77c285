"""A compaction loses nothing if a kill or a power cut interrupts it (ALWAYS-OPENS)."""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from resilient_scoop.core.events import Erase, Put, Table
from resilient_scoop.journal.journal import Journal
from tests.integration import powercut

pytestmark = pytest.mark.real

RUN = b"r" * 16
LIMIT_S = 60.0
WRITER = """
import os, sys, threading
from pathlib import Path
from resilient_scoop.journal import upkeep
from resilient_scoop.journal.committer import Committer
from resilient_scoop.journal.journal import Journal
from resilient_scoop.core.events import Erase, Put, Table
upkeep.COMPACT_BYTES_MIN = 1 << 16
journal = Journal.open(Path(sys.argv[1]))
news = threading.Semaphore(0)
committer = Committer(journal, news.release, journal.tend)
turn = int(sys.argv[2])
while turn < int(sys.argv[3]):
    turn += 1
    changes = [Put(Table.LOG, b"%08d.%d" % (turn, i), b"%d " % turn * 500) for i in range(10)]
    if turn % 150 == 0:
        changes += [Erase(Table.LOG, b"%08d" % old) for old in range(turn - 290, turn - 20)]
    committer.put(turn, changes)
    news.acquire()
    while committer.committed < turn:
        news.acquire()
    os.write(1, b"%d %s\\n" % (turn, journal.data.encode()))
committer.close()
journal.close(clean=True)
"""


def missing(journal: Journal, last: int) -> list[int]:
    return [
        turn
        for turn in range(max(1, last - 19), last + 1)
        if [v for _, v in journal.read(Table.LOG, b"%08d" % turn)] != [b"%d " % turn * 500] * 10
    ]


def checked(directory: Path, acknowledged: int) -> tuple[int, str]:
    """Open the journal after a kill or a power cut; return the last turn and the folder of the data."""
    journal = Journal.open(directory, run=RUN)
    try:
        records = journal.read(Table.LOG)
        last = int(records[-1][0].partition(b".")[0]) if records else 0
        assert last >= acknowledged
        assert missing(journal, last) == []
        assert [path.name for path in directory.glob("compact-*")] == [journal.data][
            : bool(journal.data)
        ]
        return last, journal.data
    finally:
        journal.close(clean=False)


def test_a_kill_at_any_moment_of_a_compaction_loses_nothing(tmp_path: Path) -> None:
    directory, chance = tmp_path / "journal", random.Random(2)
    Journal.create(directory, RUN).close(clean=True)
    acknowledged, seen, rounds = 0, set[str](), 0
    while rounds < 25 or len(seen) <= 3:  # a slow machine completes fewer compactions
        rounds += 1
        assert rounds < 150, f"no compaction ended: {seen}"
        command = [sys.executable, "-c", WRITER, str(directory), str(acknowledged), "1000000"]
        child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert child.stdout is not None
        heard = child.stdout.readline()
        time.sleep(chance.uniform(0, 0.7))
        child.kill()
        heard += child.stdout.read()
        child.stdout.close()
        assert child.wait() == -signal.SIGKILL
        acknowledged, data = checked(directory, int(heard.splitlines()[-1].split()[0]))
        seen.add(data)


STEPS = """
import os, sys
from pathlib import Path
from resilient_scoop.journal import upkeep
from resilient_scoop.journal.journal import Journal
from resilient_scoop.core.events import Erase, Put, Table
upkeep.COMPACT_BYTES_MIN = 1 << 16
journal = Journal.open(Path(sys.argv[1]))
turn = int(sys.argv[2])
def commit():
    global turn
    turn += 1
    journal.commit([Put(Table.LOG, b"%08d.%d" % (turn, i), b"%d " % turn * 500) for i in range(10)])
    os.write(1, b"ACK %d\\n" % turn)
commit()
while journal.data == "":
    journal.tend()
    if journal.upkeep._compaction and turn < int(sys.argv[2]) + 6:
        commit()
commit()
commit()
journal.close(clean=True)
os.write(1, b"END\\n")
"""


def mostly_free(directory: Path) -> int:
    """Make a journal that is mostly free space; return its last turn."""
    journal = Journal.create(directory, RUN)
    for turn in range(1, 61):
        value = b"%d " % turn * 500
        journal.commit([Put(Table.LOG, b"%08d.%d" % (turn, i), value) for i in range(10)])
    journal.commit([Erase(Table.LOG, b"%08d" % turn) for turn in range(1, 41)])
    journal.close(clean=True)
    return 60


needs_strace = pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")


@needs_strace
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "call", ["write", "pwrite64", "writev", "fsync", "fdatasync", "rename", "unlink", "mkdir",
             "rmdir", "unlinkat", "vfork,clone,clone3,fork", "flock"],
)  # fmt: skip
def test_a_kill_after_each_system_call_of_a_compaction_leaves_a_sound_journal(
    tmp_path: Path, call: str
) -> None:
    """Covers the main thread of a single writer, not its remover thread or the child."""
    original = tmp_path / "original"
    last = mostly_free(original)
    for number in range(1, 400):
        directory = shutil.copytree(original, tmp_path / f"journal-{number}")
        inject = f"inject={call}:signal=KILL:when={number}"
        command = ["strace", "-qq", "-o", "/dev/null", "-e", f"trace={call}", "-e", inject]
        done = subprocess.run(
            [*command, sys.executable, "-c", STEPS, str(directory), str(last)],
            capture_output=True, text=True, check=False, timeout=LIMIT_S,
        )  # fmt: skip
        if "ptrace" in done.stderr:
            pytest.skip(f"strace may not trace here: {done.stderr[:200]}")
        acknowledged = [
            int(line[4:]) for line in done.stdout.splitlines() if line.startswith("ACK")
        ]
        checked(directory, max(acknowledged, default=last))
        shutil.rmtree(directory)
        if done.stdout.endswith("END\n"):
            return
    raise AssertionError(f"{call} never came to an end")


@needs_strace
@pytest.mark.timeout(600)
def test_a_power_cut_after_any_write_of_a_compaction_leaves_a_sound_journal(tmp_path: Path) -> None:
    # Given all writes of a compaction, of its child, and of the commits meanwhile
    directory, log, chance = tmp_path / "journal", tmp_path / "trace", random.Random(3)
    last = mostly_free(directory)
    disk = powercut.Disk.of(directory)
    disk.acknowledged = last
    status = powercut.record([sys.executable, "-c", STEPS, str(directory), str(last)], log)
    if not log.exists() or log.stat().st_size == 0:
        pytest.skip("strace may not trace here")
    assert status == 0

    # When the power fails at any of these moments, with any part of the unsynced data on disk
    seen = set()
    for number, _call in enumerate(powercut.replay(disk, log)):
        image = tmp_path / f"image-{number}"
        disk.image(chance, chance.choice((0.0, 0.5, 1.0)), image)

        # Then the journal opens and has every acknowledged record
        seen.add(checked(image, disk.acknowledged)[1])
        shutil.rmtree(image)
    assert seen == {"", "compact-1"}
