"""Locks in the process of the script, where no tasks share a thread."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from resilient_scoop.task_state import locks


def test_a_condition_works_between_threads_of_the_script() -> None:
    ready, seen = threading.Condition(locks.TaskRLock()), []

    def say() -> None:
        with ready, ready:
            seen.append(1)
            ready.notify()

    with ready, ready:
        thread = threading.Thread(target=say)
        thread.start()
        assert ready.wait_for(lambda: bool(seen), timeout=10)
    thread.join()


def test_an_executor_of_the_script_gives_its_results(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threading, "_CRLock", locks.TaskRLock)
    with ThreadPoolExecutor(2) as executor:
        assert list(executor.map(pow, range(50), [2] * 50)) == [x * x for x in range(50)]
