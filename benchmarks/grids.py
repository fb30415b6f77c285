"""The runtime and its peers under one interface. Each is opened with two workers and its own defaults.

A peer is imported only when it is opened, so that its import does not slow the start of another.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, Final

from benchmarks import load, nesting

WORKERS: Final = 2
Fn = Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class Grid:
    """The operations of a runtime that are measured. All return when all results have arrived."""

    call: Callable[[Fn, Any], Any]  # submits one call and awaits its result
    # submits each item, then awaits the results
    submit_all: Callable[[Fn, Sequence[Any]], list[Any]]
    map: Callable[[Fn, Sequence[Any]], Iterable[Any]]  # a map as users write it, without tuning
    # a map with chunks of a given size
    tuned: Callable[[Fn, Sequence[Any], int], Iterable[Any]] | None = None
    nested: Callable[[int], Any] | None = None  # called in a worker; makes a map of `load.CHILDREN`


def _of_executor(executor: Any, *, chunks: bool = True) -> Grid:
    def tuned(function: Fn, items: Sequence[Any], chunk: int) -> Iterable[Any]:
        made: Iterable[Any] = executor.map(function, items, chunksize=chunk)
        return made

    return Grid(
        call=lambda function, item: executor.submit(function, item).result(),
        submit_all=lambda function, items: [
            future.result() for future in [executor.submit(function, item) for item in items]
        ],
        map=executor.map,
        tuned=tuned if chunks else None,
    )


@contextmanager
def ours() -> Iterator[Grid]:
    """Open nothing: `rscoop run` has started the workers. Its maps need no tuning."""
    from resilient_scoop import futures

    yield Grid(
        call=lambda function, item: futures.submit(function, item).result(),
        submit_all=lambda function, items: [
            future.result() for future in [futures.submit(function, item) for item in items]
        ],
        map=futures.map,
        nested=nesting.in_ours,
    )


@contextmanager
def scoop() -> Iterator[Grid]:
    """Open nothing: `python -m scoop` has started the workers."""
    futures = importlib.import_module("scoop.futures")
    yield Grid(
        call=lambda function, item: futures.submit(function, item).result(),
        submit_all=lambda function, items: [
            future.result() for future in [futures.submit(function, item) for item in items]
        ],
        map=futures.map,
        tuned=lambda function, items, chunk: [
            value
            for part in futures.map(load.chunked(function), parts(items, chunk))
            for value in part
        ],
        nested=nesting.in_scoop,
    )


@contextmanager
def ppe() -> Iterator[Grid]:
    """Open a ProcessPoolExecutor."""
    from concurrent.futures import ProcessPoolExecutor

    with ProcessPoolExecutor(WORKERS) as executor:
        yield _of_executor(executor)


@contextmanager
def loky() -> Iterator[Grid]:
    """Open loky's reusable executor."""
    module = importlib.import_module("loky")
    executor = module.get_reusable_executor(max_workers=WORKERS)
    yield _of_executor(executor)
    executor.shutdown(wait=True)


@contextmanager
def pool() -> Iterator[Grid]:
    """Open a multiprocessing.Pool."""
    import multiprocessing

    with multiprocessing.Pool(WORKERS) as opened:
        yield Grid(
            call=lambda function, item: opened.apply_async(function, (item,)).get(),
            submit_all=lambda function, items: [
                result.get() for result in [opened.apply_async(function, (item,)) for item in items]
            ],
            map=opened.map,
            tuned=lambda function, items, chunk: opened.map(function, items, chunksize=chunk),
        )


@contextmanager
def joblib() -> Iterator[Grid]:
    """Open joblib's Parallel. It has no submit: a call is a map of one."""
    module = importlib.import_module("joblib")
    delayed = module.delayed
    with module.Parallel(n_jobs=WORKERS) as opened:
        single = module.Parallel(n_jobs=WORKERS, batch_size=1)

        def each(function: Fn, items: Sequence[Any]) -> list[Any]:
            made: list[Any] = opened(delayed(function)(item) for item in items)
            return made

        def one_by_one(function: Fn, items: Sequence[Any]) -> list[Any]:
            made: list[Any] = single(delayed(function)(item) for item in items)
            return made

        def tuned(function: Fn, items: Sequence[Any], chunk: int) -> Iterable[Any]:
            batched = module.Parallel(n_jobs=WORKERS, batch_size=chunk)
            made: Iterable[Any] = batched(delayed(function)(item) for item in items)
            return made

        yield Grid(
            call=lambda function, item: each(function, [item])[0],
            submit_all=one_by_one,
            map=each,
            tuned=tuned,
            nested=nesting.in_joblib,
        )


@contextmanager
def dask() -> Iterator[Grid]:
    """Open a local Dask cluster of single-threaded workers."""
    module = importlib.import_module("dask.distributed")
    with (
        module.LocalCluster(
            n_workers=WORKERS, threads_per_worker=1, dashboard_address=None
        ) as cluster,
        module.Client(cluster) as client,
    ):

        def every(function: Fn, items: Sequence[Any]) -> list[Any]:
            made: list[Any] = client.gather(client.map(function, items, pure=False))
            return made

        yield Grid(
            call=lambda function, item: client.submit(function, item, pure=False).result(),
            submit_all=lambda function, items: client.gather(
                [client.submit(function, item, pure=False) for item in items]
            ),
            map=every,
            nested=nesting.in_dask,
        )


@contextmanager
def ray() -> Iterator[Grid]:
    """Open Ray on this host, without its dashboard."""
    module = importlib.import_module("ray")
    module.init(num_cpus=WORKERS, include_dashboard=False, log_to_driver=False)
    remotes: dict[Fn, Any] = {}

    def remote(function: Fn) -> Any:
        if function not in remotes:
            remotes[function] = module.remote(function)
        return remotes[function]

    def every(function: Fn, items: Sequence[Any]) -> list[Any]:
        task = remote(function)
        made: list[Any] = module.get([task.remote(item) for item in items])
        return made

    yield Grid(
        call=lambda function, item: module.get(remote(function).remote(item)),
        submit_all=every,
        map=every,
        nested=nesting.in_ray,
    )
    module.shutdown()


@contextmanager
def parsl() -> Iterator[Grid]:
    """Open Parsl's high-throughput executor on this host."""
    module = importlib.import_module("parsl")
    executors = importlib.import_module("parsl.executors")
    executor = executors.HighThroughputExecutor(
        label="htex", max_workers_per_node=WORKERS, address="127.0.0.1"
    )
    with module.load(module.Config(executors=[executor], initialize_logging=False)):
        app = module.python_app(nesting.apply)

        def every(function: Fn, items: Sequence[Any]) -> list[Any]:
            return [future.result() for future in [app(function, item) for item in items]]

        yield Grid(
            call=lambda function, item: app(function, item).result(), submit_all=every, map=every
        )


OPEN: Final[dict[str, Callable[[], AbstractContextManager[Grid]]]] = {
    "ours": ours, "ppe": ppe, "pool": pool, "joblib": joblib, "loky": loky, "dask": dask,
    "ray": ray, "parsl": parsl, "scoop": scoop,
}  # fmt: skip
MODULES: Final = {
    "joblib": "joblib", "loky": "loky", "dask": "distributed", "ray": "ray", "parsl": "parsl",
    "scoop": "scoop",
}  # fmt: skip
"""What must be importable for a peer; the others come with Python."""


def parts(items: Sequence[Any], chunk: int) -> list[Sequence[Any]]:
    """Cut a sequence into chunks."""
    return [items[start : start + chunk] for start in range(0, len(items), chunk)]
