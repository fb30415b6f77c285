"""Record locks of tasks that share a process behave like those of separate processes."""

from __future__ import annotations

import fcntl
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from resilient_scoop.task_state import file_locks, locks

ASKS = """
import fcntl, sys
with open(sys.argv[1], "a") as file:
    try: fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError: print("locked")
    else: print("free")
"""


class Tasks:
    """The running task, and the waiting ones."""

    def __init__(self) -> None:
        self.now = "0.0[0]"
        self.waiting: set[str] = set()


@pytest.fixture
def tasks(monkeypatch: pytest.MonkeyPatch) -> Tasks:
    monkeypatch.setattr(fcntl, "lockf", fcntl.lockf)
    monkeypatch.setattr(fcntl, "fcntl", fcntl.fcntl)
    tasks = Tasks()
    file_locks.install(lambda: tasks.now, lambda path: path in tasks.waiting)
    return tasks


def other_process(path: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", ASKS, path], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_a_lock_is_visible_to_other_tasks_and_not_to_its_own(tasks: Tasks, tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with path.open("a") as mine, path.open("a") as second, path.open("a") as others:
        fcntl.lockf(mine, fcntl.LOCK_EX)
        fcntl.lockf(second, fcntl.LOCK_EX | fcntl.LOCK_NB)
        tasks.waiting, tasks.now = {tasks.now}, "0.1[0]"
        for file in (mine, others):
            with pytest.raises(BlockingIOError):
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        others.close()  # which unlocks nothing
        assert other_process(path) == "locked"
        tasks.waiting, tasks.now = set(), "0.0[0]"
        fcntl.lockf(second, fcntl.LOCK_UN)
        assert other_process(path) == "free"


def test_a_lock_left_by_an_ended_task_is_given_to_the_next_one(
    tasks: Tasks, tmp_path: Path
) -> None:
    path = tmp_path / "lock"
    with path.open("a") as left, path.open("a") as next_:
        fcntl.lockf(left, fcntl.LOCK_EX)
        tasks.now = "0.0[1]"
        fcntl.lockf(next_, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.lockf(next_, fcntl.LOCK_UN)
        assert other_process(path) == "free"


def test_a_task_waits_for_another_one_that_locked_through_the_same_file(
    tasks: Tasks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def others_run(ready: object, until: float | None) -> None:
        del ready, until
        tasks.waiting = set()  # the holder has ended

    monkeypatch.setattr(locks._Waits, "run_others", others_run)
    lock = struct.pack("hhllhh", fcntl.F_WRLCK, 0, 0, 0, 0, 0)
    with (tmp_path / "lock").open("a") as file:
        fcntl.fcntl(file, fcntl.F_SETLK, lock)
        tasks.waiting, tasks.now = {tasks.now}, "0.1[0]"
        answer = fcntl.fcntl(file, fcntl.F_SETLKW, lock)
        assert len(answer) == len(lock)
        assert not tasks.waiting


def test_shared_locks_are_shared_and_other_ranges_are_unlocked(
    tasks: Tasks, tmp_path: Path
) -> None:
    path = tmp_path / "lock"
    with path.open("w+") as mine, path.open("w+") as others:
        fcntl.lockf(mine, fcntl.LOCK_SH, 10)
        tasks.waiting, tasks.now = {tasks.now}, "0.1[0]"
        fcntl.lockf(others, fcntl.LOCK_EX | fcntl.LOCK_NB, 10, 10)
        fcntl.lockf(others, fcntl.LOCK_UN)
        fcntl.lockf(mine, fcntl.LOCK_SH | fcntl.LOCK_NB, 10)
        with pytest.raises(BlockingIOError):
            fcntl.lockf(mine, fcntl.LOCK_EX | fcntl.LOCK_NB, 10)


def test_other_commands_and_invalid_arguments_behave_as_usual(tasks: Tasks, tmp_path: Path) -> None:
    with (tmp_path / "file").open("w") as file:
        assert fcntl.fcntl(file, fcntl.F_GETFD) == fcntl.FD_CLOEXEC
        with pytest.raises(ValueError, match="unrecognized lockf argument"):
            fcntl.lockf(file, 0)
        with pytest.raises(OSError, match="Bad file descriptor"):
            fcntl.lockf(99_999, fcntl.LOCK_EX)
