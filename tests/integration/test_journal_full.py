"""The journal without disk space, without a working disk, or without memory to map (ALWAYS-OPENS)."""

from __future__ import annotations

import errno
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from resilient_scoop.core.events import Table
from resilient_scoop.errors import JournalFullError
from resilient_scoop.journal import journal as journal_module
from resilient_scoop.journal.journal import Journal
from tests.integration.journal_process import PRELUDE, output_of

pytestmark = pytest.mark.real

RUN = b"r" * 16
FILL = """
journal = Journal.open(directory)
count = 0
def fill():
    global count
    try:
        while count < 20_000:
            journal.commit([Put(Table.LOG, b"%08d" % count, os.urandom(3000))])
            count += 1
    except JournalFullError as error:
        say("full")
def large():
    try:
        journal.commit([Put(Table.CONST, b"large", bytes(8 << 20)), Put(Table.CONST, b"s", b"")])
        say("large fits")
    except JournalFullError as error:
        say("large is full")
large()
fill()
fill()
say(journal.count(Table.LOG) == count > 0, journal.count(Table.CONST))
make_room()
large()
journal.commit([Erase(Table.LOG, b""), Put(Table.LOG, b"end", b"v")])
say(journal.read(Table.LOG), journal.count(Table.CONST), len(os.listdir(directory / "blobs")))
journal.close(clean=False)
journal = Journal.open(directory)
say(journal.read(Table.LOG))
"""
FILLED = [
    "large is full",
    "full",
    "full",
    "True 0",
    "large fits",
    "[(b'end', b'v')] 2 1",
    "[(b'end', b'v')]",
    "exit 0",
]


def test_an_opening_without_disk_space_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "journal"
    Journal.create(folder, RUN).close(clean=True)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(journal_module, "write_generation", full)
        with pytest.raises(JournalFullError, match="no room for opening: No space left"):
            Journal.open(folder)
    Journal.open(folder).close(clean=True)


def test_a_full_disk_loses_nothing_and_continues(tmp_path: Path) -> None:
    limit = """
import resource
unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
def make_room(): resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
resource.setrlimit(resource.RLIMIT_FSIZE, (2 << 20, unlimited[1]))
"""
    Journal.create(tmp_path / "journal", RUN).close(clean=True)
    assert output_of(limit + FILL, tmp_path / "journal") == FILLED


def test_a_full_file_system_loses_nothing_and_continues(tmp_path: Path) -> None:
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m,mode=700", "none", str(tmp_path / "disk")]
    (tmp_path / "disk").mkdir()
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("no right to mount; the test with a file size limit covers the logic")
    try:
        Journal.create(tmp_path / "disk" / "journal", RUN).close(clean=True)
        room = """
import subprocess
def make_room():
    subprocess.run(["mount", "-o", "remount,size=64m", str(directory.parent)], check=True)
"""
        assert output_of(room + FILL, tmp_path / "disk" / "journal") == FILLED
    finally:
        subprocess.run(["umount", "-l", str(tmp_path / "disk")], check=True)


EIO = """
from resilient_scoop.journal.committer import Committer
journal = Journal.open(directory)
committer = Committer(journal, lambda: None)
say("begin")
turn = 0
try:
    while turn < 100:
        turn += 1
        committer.put(turn, [Put(Table.LOG, b"%08d" % turn, b"v" * 3000)])
        committer.flush()
except JournalError as error:
    say(type(error).__name__, committer.committed)
try:
    journal.commit([Put(Table.LOG, b"more", b"v")])
except JournalError as error:
    say("refused")
"""


@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace to make fdatasync fail")
def test_nothing_is_acknowledged_after_a_failed_sync(tmp_path: Path) -> None:
    directory = tmp_path / "journal"
    Journal.create(directory, RUN).close(clean=True)
    # counted per thread: the twentieth of the committer
    fault = "inject=fdatasync:error=EIO:when=20"
    command = ["strace", "-f", "-qq", "-o", os.devnull, "-e", "trace=fdatasync", "-e", fault]
    done = subprocess.run(
        [*command, sys.executable, "-c", PRELUDE + EIO, str(directory)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    if "begin" not in done.stdout:
        pytest.skip(f"strace may not trace here: {done.stderr[:200]}")
    found = re.search(r"JournalError (\d+)\nrefused", done.stdout)
    assert found, done
    journal = Journal.open(directory)
    assert 1 <= int(found[1]) <= journal.count(Table.LOG) < 100
    journal.close(clean=True)


def test_a_journal_works_if_memory_may_not_be_mapped(tmp_path: Path) -> None:
    code = """
import resource
Journal.create(directory, b"r" * 16).close(clean=True)
resource.setrlimit(resource.RLIMIT_AS, (900 << 20, 900 << 20))
journal = Journal.open(directory)
journal.commit([Put(Table.LOG, b"k", b"v")])
say(journal.get(Table.LOG, b"k"))
"""
    assert output_of(code, tmp_path / "journal") == ["b'v'", "exit 0"]


def test_a_journal_leaves_address_space_for_threads(tmp_path: Path) -> None:
    code = """
import mmap, resource, threading
Journal.create(directory, b"r" * 16).close(clean=True)
used = int(open("/proc/self/statm").read().split()[0]) * mmap.PAGESIZE
resource.setrlimit(resource.RLIMIT_AS, (used + (1 << 30) + (16 << 20),) * 2)
journal = Journal.open(directory)
gate = threading.Event()
threads = [threading.Thread(target=gate.wait, daemon=True) for _ in range(8)]
for thread in threads:
    thread.start()
gate.set()
say(len(threads))
"""
    assert output_of(code, tmp_path / "journal") == ["8", "exit 0"]
