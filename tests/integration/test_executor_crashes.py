"""Calls that break other pools only fail their own future here, and the executor works afterwards."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from resilient_scoop import Executor
from resilient_scoop.errors import (
    PicklingFailedError,
    UnpicklableExceptionError,
    UnpicklingFailedError,
    WorkerCrashedError,
)

pytestmark = [pytest.mark.real, pytest.mark.timeout(60)]


def square(x: int) -> int:
    return x * x


def returned(make: Callable[[], Any]) -> Any:
    return make()


def kill_self() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def kill_unless(pid: int) -> None:
    if os.getpid() != pid:
        kill_self()


def raise_for(text: str) -> None:
    raise ValueError(text)


class LockedError(Exception):
    """An exception that cannot be pickled."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.lock = threading.Lock()


def raise_locked() -> None:
    raise LockedError("no room")


class RaisesAtPickle:
    def __reduce__(self) -> Any:
        raise RuntimeError("not now")


class ExitsAtPickle:
    def __reduce__(self) -> Any:
        sys.exit(3)


class KillsAtPickle:
    def __reduce__(self) -> Any:
        kill_self()


class RaisesAtUnpickle:
    def __reduce__(self) -> Any:
        return raise_for, ("bad bytes",)


class ExitsAtUnpickle:
    def __reduce__(self) -> Any:
        return sys.exit, (4,)


class KillsAtUnpickle:
    """Kills the worker that unpickles it, but not the program that has made it."""

    def __init__(self) -> None:
        self.pid = os.getpid()

    def __reduce__(self) -> Any:
        return kill_unless, (self.pid,)


@pytest.fixture(scope="module")
def executor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Executor]:
    """One executor for all of these tests."""
    with Executor(max_workers=2, state_dir=tmp_path_factory.mktemp("state")) as made:
        yield made


@pytest.mark.parametrize(
    ("error", "function", "args"),
    [
        pytest.param(WorkerCrashedError, kill_self, (), id="a task kills its worker"),
        pytest.param(WorkerCrashedError, os._exit, (3,), id="a task ends its process"),
        pytest.param(SystemExit, sys.exit, (3,), id="a task exits"),
        pytest.param(UnpicklableExceptionError, raise_locked, (), id="an exception cannot be pickled"),
        pytest.param(PicklingFailedError, returned, (threading.Lock,), id="a result cannot be pickled"),
        pytest.param(PicklingFailedError, returned, (RaisesAtPickle,), id="a result raises while pickled"),
        pytest.param(SystemExit, returned, (ExitsAtPickle,), id="a result exits while pickled"),
        pytest.param(WorkerCrashedError, returned, (KillsAtPickle,), id="a result kills while pickled"),
        pytest.param(UnpicklingFailedError, returned, (RaisesAtUnpickle,), id="a result raises here"),
        pytest.param(UnpicklingFailedError, returned, (ExitsAtUnpickle,), id="a result exits here"),
        pytest.param(PicklingFailedError, id, (threading.Lock(),), id="an argument cannot be pickled"),
        pytest.param(PicklingFailedError, id, (RaisesAtPickle(),), id="an argument raises while pickled"),
        pytest.param(SystemExit, id, (ExitsAtPickle(),), id="an argument exits while pickled"),
        pytest.param(ValueError, id, (RaisesAtUnpickle(),), id="an argument raises in a worker"),
        pytest.param(SystemExit, id, (ExitsAtUnpickle(),), id="an argument exits in a worker"),
        pytest.param(WorkerCrashedError, id, (KillsAtUnpickle(),), id="an argument kills a worker"),
    ],
)  # fmt: skip
def test_the_executor_works_after_a_call_that_crashes(
    executor: Executor,
    error: type[BaseException],
    function: Callable[..., Any],
    args: tuple[Any, ...],
) -> None:
    beside = executor.submit(square, 12)

    found = executor.submit(function, *args).exception(timeout=30)

    assert isinstance(found, error), repr(found)
    assert beside.result(timeout=30) == 144
    assert list(executor.map(square, range(5), timeout=30)) == [0, 1, 4, 9, 16]


def test_an_exception_that_cannot_be_pickled_keeps_its_text(executor: Executor) -> None:
    found = executor.submit(raise_locked).exception(timeout=30)
    assert isinstance(found, UnpicklableExceptionError), repr(found)
    assert "no room" in str(found)
