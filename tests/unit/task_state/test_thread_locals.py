"""`threading.local` in tasks that share a thread."""

from __future__ import annotations

import subprocess
import sys
import threading
from typing import Any

import pytest

from resilient_scoop.task_state import thread_locals


@pytest.fixture
def importing(monkeypatch: pytest.MonkeyPatch) -> None:
    state: Any = thread_locals._LocalsState
    for name, value in (("known", []), ("idle", []), ("is_importing", True), ("main", 0)):
        monkeypatch.setattr(state, name, value)
    monkeypatch.setattr(threading, "local", threading.local)
    thread_locals.install()


@pytest.mark.usefixtures("importing")
def test_a_task_that_waits_keeps_its_thread_local_data() -> None:
    class Made(threading.local):
        def __init__(self, first: int) -> None:
            self.names = [first]

    made, plain = Made(1), threading.local()
    plain.rate, plain.seen = 3, []
    thread_locals.importing(begins=False)
    later = threading.local()
    later.kept = made.names

    made.names.append(2)
    plain.rate = 4
    plain.seen.append(5)
    mine = thread_locals.leave()
    assert (made.names, plain.rate, plain.seen) == ([1], 3, [])
    assert later.kept == [1, 2]  # made by a task, not by a module
    made.names.append(9)
    plain.cache = None
    thread_locals.enter(mine)
    assert (made.names, plain.rate, plain.seen) == ([1, 2], 4, [5])
    assert not hasattr(plain, "cache")

    again = thread_locals.leave()  # the next task finds the data of the ended one
    assert (made.names, plain.cache, plain.seen) == ([1, 9], None, [])
    thread_locals.enter(again)

    mine = thread_locals.leave()
    thread_locals.enter(mine)
    thread_locals.drop()  # the task ended here
    assert made.names == [1, 9]


@pytest.mark.usefixtures("importing")
def test_thread_local_data_of_imported_modules_and_other_threads_is_unchanged() -> None:
    thread_locals.importing(begins=False)
    assert thread_locals.leave() is None
    before = thread_locals.importing(begins=True)
    held = threading.local()
    held.value = {"a": 1}
    thread_locals.importing(begins=before)

    mine = thread_locals.leave()
    assert held.value == {"a": 1}
    held.value["b"] = 2
    thread_locals.enter(mine)
    assert held.value == {"a": 1}
    seen: list[bool] = []
    thread = threading.Thread(target=lambda: seen.append(hasattr(held, "value")))
    thread.start()
    thread.join()
    assert seen == [False]
    thread_locals.forget()
    assert thread_locals.leave() is None


def test_thread_locals_of_the_script_are_not_tracked() -> None:
    text = """
import threading
from resilient_scoop.task_state import thread_locals
thread_locals.install()
for _ in range(3):
    threading.local()
assert not thread_locals._LocalsState.known, thread_locals._LocalsState.known
"""
    subprocess.run([sys.executable, "-c", text], check=True)
