"""pycma: an objective that evaluates the whole list of candidates as calls of a run.

    from resilient_scoop.contrib.cma import parallel_objective

    cma.fmin2(None, x0, sigma0, {"seed": 1}, parallel_objective=parallel_objective(loss))

Give `seed` in the options: otherwise pycma seeds itself from the clock, and a resume evaluates
other points.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from resilient_scoop import futures

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    Map = Callable[..., Iterable[Any]]

__all__ = ["parallel_objective"]


def parallel_objective(
    objective: Callable[..., float],
    *args: Any,
    map: Map = futures.map,  # noqa: A002 - the usual name
) -> Callable[[Sequence[Any]], list[float]]:
    """Return a function of a list of candidates. `args` follow the candidate in each call.

    It also accepts a single candidate, which pycma sometimes passes, and then returns a number.
    """

    def evaluate(candidates: Any) -> Any:
        if _is_one(candidates):
            return next(iter(map(_call(objective, args), [candidates])))
        return list(map(_call(objective, args), list(candidates)))

    return evaluate


def _is_one(candidates: Any) -> bool:
    return len(candidates) > 0 and not hasattr(candidates[0], "__len__")


def _call(objective: Callable[..., float], args: tuple[Any, ...]) -> Callable[[Any], float]:
    return functools.partial(_with_args, objective, args) if args else objective


def _with_args(objective: Callable[..., float], args: tuple[Any, ...], candidate: Any) -> float:
    return objective(candidate, *args)
