"""jMetalPy: an evaluator whose solutions are calls of a run.

from resilient_scoop.contrib.jmetal import MapEvaluator

NSGAII(..., population_evaluator=MapEvaluator())
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from resilient_scoop import futures

try:
    from jmetal.util.evaluator import Evaluator
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "resilient_scoop.contrib.jmetal needs jMetalPy: pip install jmetalpy", name=error.name
    ) from error

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    Map = Callable[..., Iterable[Any]]

__all__ = ["MapEvaluator"]


class MapEvaluator(Evaluator):  # type: ignore[misc, unused-ignore]  # it has no types
    """An evaluator. `map` defaults to `futures.map`; an executor's fits, too."""

    def __init__(self, map: Map = futures.map) -> None:  # noqa: A002 - the usual name
        self._map = map

    def evaluate(self, solution_list: list[Any], problem: Any) -> list[Any]:
        """Return the same solutions, evaluated: jMetalPy may refer to them elsewhere, too."""
        evaluated = self._map(functools.partial(_evaluate, problem), solution_list)
        for solution, computed in zip(solution_list, evaluated, strict=True):
            vars(solution).update(vars(computed))
        return solution_list


def _evaluate(problem: Any, solution: Any) -> Any:
    evaluated = problem.evaluate(solution)
    return solution if evaluated is None else evaluated
