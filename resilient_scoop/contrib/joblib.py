"""joblib: a backend, and with it scikit-learn's searches and all else that uses joblib.

    import joblib
    from resilient_scoop.contrib.joblib import register

    register()
    with joblib.parallel_config("rscoop"):
        GridSearchCV(model, grid, n_jobs=-1).fit(X, y)

Tasks are dispatched by the thread that called `Parallel`, when it waits. Each task is a call of its
own, whatever the batch size: so a resume makes the same calls and finds their results. `n_jobs` limits
how many batches are dispatched ahead; -1 stands for the number of workers that the run was started
with. A batch is one task; after 64 tasks four, after 512 tasks 16, unless `batch_size=` says another.
A `Parallel` inside a task uses the same backend: its calls go to all workers.

Differences to joblib's own backends: `return_as="generator_unordered"` yields in the order of the
tasks; of several failed tasks, the error of the first in order is raised. Estimators with callbacks of
scikit-learn 1.9 send an id that is new in each process: their tasks are computed again by a resume.
"""

from __future__ import annotations

import datetime as dt
import functools
import multiprocessing
import time
import uuid
from typing import TYPE_CHECKING, Any, Final

from resilient_scoop import pool, this_process
from resilient_scoop.futures import _options
from resilient_scoop.futures._shared import cancel_all
from resilient_scoop.values.user_code import describe

try:
    import joblib
    from joblib.parallel import ParallelBackendBase, SequentialBackend
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "resilient_scoop.contrib.joblib needs joblib: pip install 'joblib>=1.3'", name=error.name
    ) from error

if TYPE_CHECKING:
    from collections.abc import Callable

    from resilient_scoop.wire.messages import Options

__all__ = ["Backend", "register"]

NAME: Final = "rscoop"
_NO_ID: Final = uuid.UUID(int=0)
_NO_TIME: Final = dt.datetime.fromtimestamp(0, dt.UTC)
_LOOKED_AT: Final = 256
"""How many batches, from the oldest on, are waited for at a time."""
_SIZES: Final = ((64, 1), (512, 4))
"""Sizes of batches until so many tasks were dispatched; then 16. Time has no part in it."""

_given: list[pool.PoolCalls] = []
"""The executor for calls of this process, if the user has given one."""
_opened: list[pool.PoolCalls] = []
"""Where they go otherwise, once this process has made some."""


def register(name: str = NAME, *, executor: Any = None) -> None:
    """Register the backend with joblib.

    A process that belongs to no run uses `executor`, or else starts one with the first call.
    """
    _given[:] = [] if executor is None else [pool.OfExecutor(executor)]
    joblib.register_parallel_backend(name, Backend)


def _calls() -> pool.PoolCalls:
    if _given:
        return _given[0]
    if not _opened:
        _opened.append(pool.open_calls())
    return _opened[0]


class TaskBatch:
    """Tasks that joblib has dispatched together, each a call of its own."""

    def __init__(self, backend: Backend, dispatch_next: Callable[[Any], object]) -> None:
        self._backend = backend
        self.dispatch_next = dispatch_next
        self.futures: list[pool.PoolFuture] = []
        self.left: list[pool.PoolFuture] = []

    def get(self, timeout: float | None = None) -> list[Any]:
        """Return the results, as joblib before 1.5 asks for them."""
        return self._backend.retrieve_result(self, timeout)


class Backend(ParallelBackendBase):  # type: ignore[misc, unused-ignore]  # it has no types
    """A backend of joblib over the run."""

    default_n_jobs = -1
    uses_threads = False
    supports_sharedmem = False
    # joblib then asks for each result in the thread that waits, and dispatches from there.
    supports_retrieve_callback = False
    supports_return_generator = True
    supports_timeout = True

    def __init__(
        self,
        nesting_level: int | None = None,
        inner_max_num_threads: int | None = None,
        **more: Any,
    ) -> None:
        super().__init__(nesting_level, inner_max_num_threads, **more)
        self._workers: int | None = None
        self._waiting: list[TaskBatch] = []
        self._dispatched = 0

    def __reduce__(self) -> tuple[Any, ...]:
        return Backend, (self.nesting_level, self.inner_max_num_threads)

    def effective_n_jobs(self, n_jobs: int | None) -> int:
        """Return how many tasks may be in progress; -1: as many as there are workers."""
        if n_jobs == 0:
            raise ValueError("n_jobs == 0 in Parallel has no meaning")
        if n_jobs is None:
            return 1
        if n_jobs > 0:
            return n_jobs
        if self._workers is None:
            self._workers = _calls().size()
        return max(1, self._workers + 1 + n_jobs)

    def configure(self, n_jobs: int = 1, parallel: Any = None, **more: Any) -> int:
        """Prepare for a call of `Parallel`."""
        if parallel is not None:
            parallel.return_ordered = True  # results come in order, also where they need not
        self._dispatched = 0
        count: int = super().configure(n_jobs, parallel, **more)
        return count

    def compute_batch_size(self) -> int:
        """Return how many tasks the next batch gets: more calls in progress, if there are many."""
        return next((size for count, size in _SIZES if self._dispatched < count), 16)

    def submit(self, func: Any, callback: Callable[[Any], object]) -> TaskBatch:
        """Submit a batch of tasks: a call for each."""
        submit, level = _calls().submit, (self.nesting_level or 0) + 1
        batch = TaskBatch(self, callback)
        for function, args, kwargs in func.items:
            if "callback_ctx" in kwargs:
                _make_repeatable(kwargs["callback_ctx"])
            task = _task(_options.of(function), describe(function))
            batch.futures.append(submit(task, level, function, args, kwargs))
        batch.left = list(batch.futures)
        self._dispatched += len(batch.left)
        self._waiting.append(batch)
        return batch

    apply_async = submit  # its name before joblib 1.5

    def retrieve_result(self, out: TaskBatch, timeout: float | None = None) -> list[Any]:
        """Return the results of a batch; meanwhile, let joblib dispatch others when batches end.

        Raises:
            multiprocessing.TimeoutError: they were not there within `timeout` seconds.
        """
        until = None if timeout is None else time.monotonic() + timeout
        while out.left:
            left_s = None if until is None else max(0.0, until - time.monotonic())
            first = self._waiting[:_LOOKED_AT]
            done = _calls().wait([x for each in first for x in each.left], left_s, first=True)
            if not done:
                raise multiprocessing.TimeoutError(
                    f"a task of joblib has no result after {timeout} s: raise `timeout=` of Parallel"
                )
            self._settle(first, set(map(id, done)))
        return [each.result() for each in out.futures]

    def _settle(self, first: list[TaskBatch], done: set[int]) -> None:
        """Take calls out of their batches; let joblib dispatch a batch for each that has ended."""
        for batch in first:
            batch.left = [each for each in batch.left if id(each) not in done]
        self._waiting[: len(first)] = [batch for batch in first if batch.left]
        for batch in first:
            if not batch.left:
                batch.dispatch_next(batch)

    def abort_everything(self, ensure_ready: bool = True) -> None:
        """Cancel what was not started."""
        del ensure_ready
        waiting, self._waiting = self._waiting, []
        cancel_all([future for batch in waiting for future in batch.left])

    def get_nested_backend(self) -> tuple[Any, int | None]:
        """Return the backend for a `Parallel` inside a task."""
        return _nested((self.nesting_level or 0) + 1), None


def _make_repeatable(context: Any) -> None:
    """Remove the id and time that scikit-learn 1.9 sends for its callbacks, if there are no callbacks.

    They are new in each process, so a resume would not recognize any task.
    """
    callbacks = getattr(context, "_callbacks", None)
    if callbacks != [] or getattr(context, "root_uuid", _NO_ID) == _NO_ID:
        return
    root = context
    while root.parent is not None:
        root = root.parent
    for each in root:
        each.root_uuid, each.init_time = _NO_ID, _NO_TIME


def _nested(level: int) -> Any:
    if this_process.IS_RUNNING:
        return Backend(level)
    return SequentialBackend(nesting_level=level)


def run_task(
    level: int, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """Run a task in a worker; a `Parallel` in it uses this backend."""
    joblib.register_parallel_backend(NAME, Backend)  # the task may name it too
    with joblib.parallel_config(backend=_nested(level), n_jobs=None):
        return function(*args, **kwargs)


class Task:
    """`run_task` for one function of the user: with its options, and its name for display."""

    def __init__(self, options: Options, described: str) -> None:
        self._described = described
        # A replay compares this name; what the function does is compared as an argument.
        self.__module__, self.__qualname__ = __name__, f"run_task({described})"
        _options.set_on(self, _options.named(options, described))

    def __reduce__(self) -> tuple[Any, ...]:
        return Task, (_options.of(self), self._described)

    def __call__(self, *given: Any) -> Any:
        """Run a task."""
        return run_task(*given)


_task: Final = functools.lru_cache(maxsize=256)(Task)
