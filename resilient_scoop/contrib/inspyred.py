"""inspyred: an evaluator whose candidates are calls of a run.

    from resilient_scoop.contrib.inspyred import evaluator_of

    algorithm.evolve(generator, evaluator_of(loss), ...)

inspyred's own `parallel_evaluation_mp` sends `args`, which holds the algorithm itself; here only the
candidate is sent.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from resilient_scoop import futures

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    Map = Callable[..., Iterable[Any]]

__all__ = ["evaluator_of"]


def evaluator_of(
    fitness: Callable[[Any], Any],
    map: Map = futures.map,  # noqa: A002 - the usual name
) -> Callable[[list[Any], dict[str, Any]], list[Any]]:
    """Return an evaluator of inspyred from a function of one candidate."""

    def evaluate(candidates: list[Any], args: dict[str, Any]) -> list[Any]:
        del args
        return list(map(fitness, candidates))

    return evaluate
