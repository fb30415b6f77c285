"""The state of objects that cannot be pickled."""

from __future__ import annotations

import concurrent.futures as cf
import hashlib
import hmac
import multiprocessing
import queue
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from resilient_scoop.values.hidden_state import state_of


def begun() -> Iterator[int]:
    made = (x for x in range(3))
    next(made)
    return made


MAKERS: dict[str, tuple[Callable[[], Any], Callable[[Any], object]]] = {
    "event": (threading.Event, lambda event: event.set()),
    "queue": (queue.Queue, lambda held: held.put(1)),
    "simple queue": (queue.SimpleQueue, lambda held: held.put(1)),
    "shared value": (lambda: multiprocessing.Value("i"), lambda held: setattr(held, "value", 3)),
    "view": (lambda: memoryview(bytearray(2)), lambda view: view.__setitem__(0, 1)),
    "hash": (hashlib.sha256, lambda made: made.update(b"x")),
    "blake2": (hashlib.blake2b, lambda made: made.update(b"x")),
    "shake": (hashlib.shake_128, lambda made: made.update(b"x")),
    "hmac": (lambda: hmac.new(b"k", digestmod="md5"), lambda made: made.update(b"x")),
    "generator": (lambda: (x for x in range(3)), next),
    "generator that has begun": (begun, next),
    "future": (cf.Future, lambda future: future.set_result(1)),
    "database": (
        lambda: sqlite3.connect(":memory:"),
        lambda held: held.execute("create table t (x)"),
    ),
}


@pytest.mark.parametrize("name", MAKERS)
def test_a_change_of_an_object_changes_its_state(name: str) -> None:
    make, change = MAKERS[name]
    one, same = make(), make()
    assert state_of(one) == state_of(one) == state_of(same)

    change(one)

    assert state_of(one) == state_of(one) != state_of(same)
    for each in (one, same):
        if isinstance(each, sqlite3.Connection):
            each.close()  # Python 3.13 warns of those that are not


def test_rows_of_a_database_in_memory_count_and_those_of_a_file_do_not(tmp_path: Path) -> None:
    for place, counts in ((":memory:", True), (str(tmp_path / "some.db"), False)):
        held = sqlite3.connect(place)
        held.execute("create table t (x)")
        before = state_of(held)
        held.execute("insert into t values (1)")
        assert (state_of(held) != before) is counts
        held.close()
        assert state_of(held) == b""


def test_objects_of_other_kinds_have_no_state() -> None:
    assert [state_of(each) for each in (threading.Lock(), object(), iter([]))] == [b""] * 3
