"""joblib: a backend, and with it scikit-learn's searches and all else that uses joblib.

    import joblib
    from resilient_scoop.contrib.joblib import register

    register()
    with joblib.parallel_config("rscoop"):
        GridSearchCV(model, grid, n_jobs=-1).fit(X, y)

Tasks are dispatched by the thread that called `Parallel`, when it waits, one call per task: so a
resume makes the same calls and finds their results. `n_jobs` limits how many tasks are dispatched
ahead; -1 stands for the number of workers that the run was started with. A `Parallel` inside a task
uses the same backend: its calls go to all workers.

Differences to joblib's own backends: `return_as="generator_unordered"` yields in the order of the
tasks; of several failed tasks, the error of the first in order is raised. Estimators with callbacks of
scikit-learn 1.9 send an id that is new in each process: their tasks are computed again by a resume.
"""

from __future__ import annotations

import datetime as dt
import time
import uuid
from typing import TYPE_CHECKING, Any, Final

from resilient_scoop import pool, this_process

try:
    import joblib
    from joblib.parallel import ParallelBackendBase, SequentialBackend
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "resilient_scoop.contrib.joblib needs joblib: pip install 'joblib>=1.4'", name=error.name
    ) from error

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Item = tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]

__all__ = ["Backend", "register"]

_NO_ID: Final = uuid.UUID(int=0)
_NO_TIME: Final = dt.datetime.fromtimestamp(0, dt.UTC)

_opened: list[pool.Calls] = []
"""Where calls of this process go, once it has made some."""


def register(name: str = "rscoop", *, executor: Any = None) -> None:
    """Register the backend with joblib.

    A process that belongs to no run uses `executor`, or else starts one with the first call.
    """
    if executor is not None:
        _opened[:] = [pool.OfExecutor(executor)]
    joblib.register_parallel_backend(name, Backend)


def _calls() -> pool.Calls:
    if not _opened:
        _opened.append(pool.open_calls())
    return _opened[0]


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
        workers: int | None = None,
        **more: Any,
    ) -> None:
        super().__init__(nesting_level, inner_max_num_threads, **more)
        self._workers = workers
        self._waiting: dict[int, tuple[pool.Future, Callable[[Any], object]]] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        return Backend, (self.nesting_level, self.inner_max_num_threads, self._workers)

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
        count: int = super().configure(n_jobs, parallel, **more)
        return count

    def submit(self, func: Any, callback: Callable[[Any], object]) -> pool.Future:
        """Submit a batch of tasks."""
        items: Sequence[Item] = func.items
        for _, _, kwargs in items:
            if "callback_ctx" in kwargs:
                _make_repeatable(kwargs["callback_ctx"])
        level, n_jobs = (self.nesting_level or 0) + 1, func._n_jobs  # noqa: SLF001 - joblib's
        future = _calls().submit(run_batch, items, level, self._workers, n_jobs)
        self._waiting[id(future)] = future, callback
        return future

    apply_async = submit  # its name before joblib 1.5

    def retrieve_result(self, out: pool.Future, timeout: float | None = None) -> Any:
        """Return the result of a batch; meanwhile, as batches end, have joblib dispatch others.

        Raises:
            TimeoutError: it was not there within `timeout` seconds.
        """
        until = None if timeout is None else time.monotonic() + timeout
        while id(out) in self._waiting:
            left = None if until is None else max(0.0, until - time.monotonic())
            done = _calls().wait([each for each, _ in self._waiting.values()], left, first=True)
            if not done:
                raise TimeoutError(f"a task of joblib has no result after {timeout} s")
            for each in done:
                _, dispatch_next = self._waiting.pop(id(each))
                dispatch_next(each)
        return out.result()

    def abort_everything(self, ensure_ready: bool = True) -> None:
        """Cancel what was not started."""
        del ensure_ready
        waiting, self._waiting = self._waiting, {}
        for future, _ in waiting.values():
            future.cancel()

    def get_nested_backend(self) -> tuple[Any, int | None]:
        """Return the backend for a `Parallel` inside a task."""
        return _nested((self.nesting_level or 0) + 1, self._workers), None


def _make_repeatable(context: Any) -> None:
    """Take id and time out of what scikit-learn 1.9 sends for its callbacks, if there are none.

    They are new in each process, so a resume would take each task for another one.
    """
    callbacks = getattr(context, "_callbacks", None)
    if callbacks != [] or getattr(context, "root_uuid", _NO_ID) == _NO_ID:
        return
    root = context
    while root.parent is not None:
        root = root.parent
    for each in root:
        each.root_uuid, each.init_time = _NO_ID, _NO_TIME


def _nested(level: int, workers: int | None) -> Any:
    if this_process.IS_RUNNING:
        return Backend(level, workers=workers)
    return SequentialBackend(nesting_level=level)


def run_batch(items: Sequence[Item], level: int, workers: int | None, n_jobs: int | None) -> Any:
    """Run tasks one after another, in a worker; a `Parallel` in them uses this backend."""
    with joblib.parallel_config(backend=_nested(level, workers), n_jobs=n_jobs):
        return [function(*args, **kwargs) for function, args, kwargs in items]
