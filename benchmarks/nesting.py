"""Parents of the nested case: functions that run in a worker and make a map in their runtime."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from benchmarks.load import CHILDREN, noop


def apply(function: Callable[[Any], Any], item: Any) -> Any:
    """Call a function; Parsl wraps this one instead of each of ours."""
    return function(item)


def in_ours(number: int) -> int:
    """Map in resilient_scoop."""
    from resilient_scoop import futures

    made: list[int] = list(futures.map(noop, range(CHILDREN)))
    return number + sum(made)


def in_scoop(number: int) -> int:
    """Map in SCOOP."""
    futures = importlib.import_module("scoop.futures")
    made: list[int] = list(futures.map(noop, range(CHILDREN)))
    return number + sum(made)


def in_joblib(number: int) -> int:
    """Map in joblib, which runs nested ones in the worker itself."""
    module = importlib.import_module("joblib")
    made: list[int] = module.Parallel(n_jobs=2)(module.delayed(noop)(i) for i in range(CHILDREN))
    return number + sum(made)


def in_dask(number: int) -> int:
    """Map in Dask, through the client of the worker."""
    module = importlib.import_module("dask.distributed")
    with module.worker_client() as client:
        made: list[int] = client.gather(client.map(noop, range(CHILDREN), pure=False))
    return number + sum(made)


def in_ray(number: int) -> int:
    """Map in Ray."""
    module = importlib.import_module("ray")
    task = module.remote(noop)
    made: list[int] = module.get([task.remote(i) for i in range(CHILDREN)])
    return number + sum(made)
