"""CPython's tests of `concurrent.futures`, over `resilient_scoop.Executor` and its futures.

Every test of the suite runs here, or stands in `LEFT_OUT` with the reason.
"""

from __future__ import annotations

import concurrent.futures as cf
import contextlib
import gc
import logging
import pickle
import re
import sys
import unittest.mock
from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, Final

import pytest

from resilient_scoop import Executor
from resilient_scoop.errors import UnpicklingFailedError, WorkerCrashedError
from resilient_scoop.futures._shared import SharedFuture
from tests.conformance.suite import NAME, Suite

pytestmark = [pytest.mark.conformance, pytest.mark.timeout(300)]

suite = Suite()

_INNARDS = "it looks into the standard pool's private attributes (`_processes`, `_threads`, queues)"
_THREADS = "its function shares memory with the test: for threads only"
_PRINTS = "a task prints to the standard output of the program; here that goes to the worker's log"
_OTHER = "it makes a pool of the standard library, not one of the type under test"
_PER_CHILD = "`max_tasks_per_child` does not exist here"
_LOCKS = (
    "it sends a lock, a queue or a proxy of `multiprocessing`, which only its own children can get"
)

LEFT_OUT: Final = {
    "ExecutorShutdownTest.test_interpreter_shutdown": _PRINTS,
    "ExecutorShutdownTest.test_hang_gh83386": _PRINTS,
    "ThreadPoolShutdownTest.test_threads_terminate": _INNARDS,
    "ThreadPoolShutdownTest.test_context_manager_shutdown": _OTHER,
    "ThreadPoolShutdownTest.test_del_shutdown": _OTHER,
    "ThreadPoolShutdownTest.test_shutdown_no_wait": _OTHER,
    "ThreadPoolShutdownTest.test_thread_names_assigned": _OTHER,
    "ThreadPoolShutdownTest.test_thread_names_default": _OTHER,
    "ThreadPoolShutdownTest.test_cancel_futures_wait_false": _PRINTS,
    "ProcessPoolShutdownTest.test_processes_terminate": _LOCKS,
    "ProcessPoolShutdownTest.test_context_manager_shutdown": _OTHER,
    "ProcessPoolShutdownTest.test_del_shutdown": _OTHER,
    "ProcessPoolShutdownTest.test_shutdown_no_wait": _OTHER,
    "ThreadPoolWaitTests.test_pending_calls_race": _THREADS,
    "ThreadPoolExecutorTest.test_map_submits_without_iteration": _THREADS,
    "ThreadPoolExecutorTest.test_default_workers": "the default is one worker per core here",
    "ThreadPoolExecutorTest.test_saturation": _THREADS,
    "ThreadPoolExecutorTest.test_idle_thread_reuse": _INNARDS,
    "ThreadPoolExecutorTest.test_hang_global_shutdown_lock": _OTHER,
    "ThreadPoolExecutorTest.test_executor_map_current_future_cancel": _THREADS,
    "ProcessPoolExecutorTest.test_max_workers_too_large": "a limit of Windows",
    "ProcessPoolExecutorTest.test_killed_child": "a killed worker breaks nothing here: the call runs again",
    "ProcessPoolExecutorTest.test_traceback": "it asks for a private class as the cause of an exception",
    "ProcessPoolExecutorTest.test_ressources_gced_in_workers": _LOCKS,
    "ProcessPoolExecutorTest.test_saturation": _LOCKS,
    "ProcessPoolExecutorTest.test_idle_process_reuse_one": _INNARDS,
    "ProcessPoolExecutorTest.test_idle_process_reuse_multiple": _INNARDS,
    "ProcessPoolExecutorTest.test_max_tasks_per_child": _PER_CHILD,
    "ProcessPoolExecutorTest.test_max_tasks_per_child_defaults_to_spawn_context": _PER_CHILD,
    "ProcessPoolExecutorTest.test_max_tasks_early_shutdown": _PER_CHILD,
    "ProcessPoolExecutorTest.test_python_finalization_error": _INNARDS,
    "ExecutorDeadlockTest.test_shutdown_deadlock_pickle": _INNARDS,
    "ExecutorDeadlockTest.test_gh105829_should_not_deadlock_if_wakeup_pipe_full": _INNARDS,
}
"""Tests of the suite that do not run here, and why. Those that a version lacks may stand here, too."""


class Collected(suite.BaseTestCase):  # type: ignore[misc,name-defined]
    """Checks that no thread or process is left, after collecting cycles of objects."""

    def tearDown(self) -> None:
        support = suite.BaseTestCase.setUp.__globals__["support"]
        support.environment_altered = False
        gc.collect()
        super().tearDown()
        assert not support.environment_altered, "a thread or a process is left"


class OurExecutor(Executor):
    """Ours, which takes no `mp_context`: its workers are processes of their own."""

    def __init__(
        self, max_workers: int | None = None, *, mp_context: object = None, **more: Any
    ) -> None:
        super().__init__(max_workers, **more)


class Ours(suite.ExecutorMixin):  # type: ignore[misc,name-defined]
    """What the suite's classes are mixed with."""

    executor_type = OurExecutor

    def get_context(self) -> None:
        """Return no context of `multiprocessing`."""


@pytest.fixture(autouse=True)
def _children_use_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the programs that the suite starts use our executor."""
    home = suite.home("ExecutorShutdownTest")
    start = home.assert_python_ok

    def assert_python_ok(flag: str, program: str) -> Any:
        name = re.escape(OurExecutor.__name__)
        ours = f"import sys; sys.path[:0] = {sys.path!r}; from resilient_scoop import Executor as {name}"
        text, count = re.subn(rf"from concurrent\.futures import {name}", lambda _: ours, program)
        assert count == 1, program
        return start(flag, text)

    monkeypatch.setattr(home, "assert_python_ok", assert_python_ok)


class TestInitializer(suite.InitializerMixin, Ours, Collected):  # type: ignore[misc,name-defined]
    pass


class TestFailingInitializer(suite.FailingInitializerMixin, Ours, Collected):  # type: ignore[misc,name-defined]
    pass


class TestShutdown(suite.ExecutorShutdownTest, Ours, Collected):  # type: ignore[misc,name-defined]
    def setUp(self) -> None:
        """Wait for a worker: a call that no worker has yet can be canceled, so all might be."""
        super().setUp()
        self.executor.submit(pow, 2, 5).result()


class TestWait(suite.WaitTests, Ours, Collected):  # type: ignore[misc,name-defined]
    pass


class TestAsCompleted(suite.AsCompletedTests, Ours, Collected):  # type: ignore[misc,name-defined]
    pass


class TestExecutor(suite.ProcessPoolExecutorTest, Ours, Collected):  # type: ignore[misc,name-defined]
    pass


_NOT_BROKEN: Final[dict[str, type[BaseException]]] = {
    "test_exit_at_task_unpickle": SystemExit,
    "test_error_at_task_unpickle": pickle.UnpicklingError,
    "test_crash_at_task_unpickle": WorkerCrashedError,
    "test_crash_during_func_exec_on_worker": WorkerCrashedError,
    "test_crash_during_result_pickle_on_worker": WorkerCrashedError,
    "test_error_during_result_unpickle_in_result_handler": UnpicklingFailedError,
    "test_exit_during_result_unpickle_in_result_handler": UnpicklingFailedError,
    "test_shutdown_deadlock": WorkerCrashedError,
    "test_crash_big_data": WorkerCrashedError,
}
"""What a call gets here where the standard pool breaks as a whole, or exits."""


class TestDeadlock(suite.ExecutorDeadlockTest, Ours, Collected):  # type: ignore[misc,name-defined]
    """Here the executor must work afterwards, too."""

    def setUp(self) -> None:
        super().setUp()
        self.addCleanup(setattr, sys, "stderr", sys.stderr)
        error = _NOT_BROKEN.get(self._testMethodName)
        if error is not None:
            module = suite.home("ExecutorDeadlockTest")
            self.addCleanup(setattr, module, "BrokenProcessPool", BrokenProcessPool)
            module.BrokenProcessPool = error  # type: ignore[attr-defined]

    def _check_crash(
        self, error: type[BaseException], func: Any, *args: Any, ignore_stderr: bool = False
    ) -> None:
        expected = _NOT_BROKEN.get(self._testMethodName, error)
        found = self.executor.submit(func, *args).exception(timeout=60)
        assert isinstance(found, expected), repr(found)
        assert self.executor.submit(pow, 2, 8).result(timeout=60) == 256


class _Calls:
    """Cancels what no broker has."""

    def cancel(self, future: SharedFuture[Any]) -> bool:
        return cf.Future.cancel(future)


class Future(SharedFuture[Any]):
    """A future of ours without a run."""

    def __init__(self) -> None:
        super().__init__(_Calls(), "function")  # type: ignore[arg-type]


@pytest.fixture(scope="module", autouse=True)
def _futures_are_ours() -> Iterator[None]:
    home = suite.home("FutureTests")
    util = sys.modules[suite.create_future.__module__]
    names = [name for name in vars(home) if name.endswith("_FUTURE")]
    with pytest.MonkeyPatch.context() as patch, contextlib.ExitStack():
        for module in {home, util}:
            patch.setattr(module, "Future", Future)
        for name in names:
            old = getattr(home, name)
            patch.setattr(home, name, suite.create_future(old._state, old._exception, old._result))
        yield


class TestFuture(suite.FutureTests):  # type: ignore[misc,name-defined]
    def setUp(self) -> None:
        super().setUp()
        # What is logged goes to the standard error if no handler is set; pytest does.
        self.enterContext(unittest.mock.patch.object(logging.root, "handlers", []))


for _each in list(LEFT_OUT):
    _owner, _, _test = _each.partition(".")
    for _class in (TestShutdown, TestExecutor, TestDeadlock):
        if _owner in {base.__name__ for base in _class.__mro__} and hasattr(_class, _test):
            setattr(_class, _test, None)


def _tests_of(name: str) -> set[str]:
    made = getattr(suite, name, None)
    return {each for each in vars(made) if each.startswith("test_")} if made else set()


def test_every_test_of_the_suite_runs_or_is_listed_with_a_reason() -> None:
    running = {
        f"{base.__name__}.{test}"
        for made in list(globals().values())
        if isinstance(made, type) and made.__name__.startswith("Test")
        for base in made.__mro__[1:]
        for test in vars(base)
        if test.startswith("test_") and getattr(made, test) is not None
    }
    there = {
        f"{made.__name__}.{test}"
        for module in suite.modules
        for made in vars(module).values()
        if isinstance(made, type) and made.__module__.startswith(NAME)
        for test in vars(made)
        if test.startswith("test_") and not made.__name__.endswith("ResourcesTest")
    }
    assert there <= running | LEFT_OUT.keys(), sorted(there - running - LEFT_OUT.keys())
    assert not running & LEFT_OUT.keys()
    assert Path(suite.modules[0].__file__ or "").is_file()
