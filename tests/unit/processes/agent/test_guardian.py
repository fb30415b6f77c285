"""The guardian starts a new agent, or keeps the one that is already there."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from resilient_scoop.core.endings import STOPPED
from resilient_scoop.processes.agent import guardian
from resilient_scoop.transport.tickets import Ticket

KEY = f"r-{os.getpid()}"
TICKET = Ticket(
    run_id="r", run_key=KEY, id="t", host="alice", server="", public="", secret="", addresses=[]
)
SERVED = 7


class Host:
    """A host's folder of a run, and the processes that were started there."""

    def __init__(self, base: Path) -> None:
        self.folder = base / f"rscoop-{os.getuid()}" / f"{KEY}.alice"
        self.folder.mkdir(parents=True, mode=0o700)
        self.folder.parent.chmod(0o700)
        self.locks: list[int] = []

    def lock(self) -> int:
        fd = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(fd, fcntl.LOCK_EX)
        return fd

    def serve(self, made: guardian._Guardian) -> int:
        assert made.folder == self.folder
        self.locks.append(made.lock)
        return SERVED


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    made = Host(tmp_path)

    def serve(each: guardian._Guardian) -> int:
        return made.serve(each)

    monkeypatch.setenv("RSCOOP_HOST_DIR", str(tmp_path))
    monkeypatch.setattr(guardian, "_read_ticket", lambda _: TICKET)
    monkeypatch.setattr(guardian._Guardian, "serve", serve)
    monkeypatch.setattr(guardian, "FREE_BYTES_MIN", 0)
    yield made
    for fd in made.locks:
        os.close(fd)


@pytest.fixture
def agent(host: Host) -> Iterator[subprocess.Popen[bytes]]:
    """A process that looks like an agent in the host's folder."""
    words = [sys.executable, "-c", "input()", guardian._ENTRY, "remote-agent", KEY, "tag"]
    with subprocess.Popen(words, stdin=subprocess.PIPE, cwd=host.folder) as process:
        deadline = time.monotonic() + 5.0
        while guardian._living(KEY, host.folder) is None:
            assert time.monotonic() < deadline
        yield process
        process.kill()


def later(what: Callable[[], object], seconds: float = 0.3) -> None:
    timer = threading.Timer(seconds, what)
    timer.daemon = True
    timer.start()


def test_a_host_without_an_agent_gets_one(host: Host) -> None:
    assert guardian._start(KEY, "tag") == SERVED


@pytest.mark.parametrize("has_guardian", [False, True])
def test_a_live_agent_is_kept_whether_or_not_its_guardian_lives(
    host: Host, agent: subprocess.Popen[bytes], capfd: pytest.CaptureFixture[str],
    *, has_guardian: bool,
) -> None:  # fmt: skip
    lock = host.lock() if has_guardian else -1
    later(agent.kill)
    assert guardian._start(KEY, "tag") == 0
    said = capfd.readouterr().out
    assert f'"pid": {agent.pid}' in said
    assert '"state": "ended"' in said
    assert not host.locks
    if lock >= 0:
        os.close(lock)


def test_a_start_waits_for_a_guardian_that_removes_its_folder(host: Host) -> None:
    lock = host.lock()

    def end() -> None:
        shutil.rmtree(host.folder)
        os.close(lock)

    later(end)
    assert guardian._start(KEY, "tag") == SERVED
    assert os.fstat(host.locks[0]).st_ino == (host.folder / "lock").stat().st_ino


def test_a_lock_that_is_not_released_is_reported(
    host: Host, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(guardian, "_LOCK_S", 0.2)
    lock = host.lock()
    assert guardian._start(KEY, "tag") == STOPPED
    assert "fuser" in capfd.readouterr().out
    os.close(lock)
