"""LEAP: a pipeline operator that evaluates individuals as calls of a run.

    from resilient_scoop.contrib.leap import evaluate

    generational_ea(..., init_evaluate=evaluate, pipeline=[..., ops.pool(size=20), evaluate])

Put it after `ops.pool`: it takes a list of individuals and returns the same, evaluated. In a session or
with an executor: `evaluate = Evaluator(session.map)`. LEAP's own `distrib` needs a Dask cluster.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from resilient_scoop import futures

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    Map = Callable[..., Iterable[Any]]

__all__ = ["Evaluator", "evaluate"]

_KEPT = ("decoder", "parents", "problem", "uuid")
"""What an individual keeps of its own. Ids are new in each process, so they are not sent."""


class Evaluator:
    """A pipeline operator. `map` defaults to `futures.map`; a session's or an executor's fits, too."""

    def __init__(self, map: Map = futures.map) -> None:  # noqa: A002 - the usual name
        self._map = map

    def __call__(self, individuals: Iterable[Any]) -> list[Any]:
        """Return the individuals, evaluated."""
        evaluated = list(individuals)
        sent = [_without_ids(each) for each in evaluated]
        for individual, state in zip(evaluated, self._map(_state_of, sent), strict=True):
            vars(individual).update(state)
        return evaluated


evaluate = Evaluator()


def _without_ids(individual: Any) -> Any:
    sent = copy.copy(individual)
    vars(sent).pop("uuid", None)
    vars(sent).pop("parents", None)
    return sent


def _state_of(individual: Any) -> dict[str, Any]:
    individual.evaluate()
    return {name: value for name, value in vars(individual).items() if name not in _KEPT}
