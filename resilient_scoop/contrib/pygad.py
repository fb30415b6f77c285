"""PyGAD: a fitness function for batches, whose solutions are calls of a run.

    from resilient_scoop.contrib.pygad import batch_fitness

    pygad.GA(fitness_func=batch_fitness(fitness), fitness_batch_size=sol_per_pop, ...)

`parallel_processing=` of PyGAD makes processes of its own: leave it out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from resilient_scoop import futures

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    Map = Callable[..., Iterable[Any]]

__all__ = ["batch_fitness"]


def batch_fitness(
    fitness: Callable[[Any], Any],
    map: Map = futures.map,  # noqa: A002 - the usual name
) -> Callable[[Any, Sequence[Any], Sequence[int]], list[Any]]:
    """Return a `fitness_func` for batches from a function of one solution."""

    def evaluate(ga_instance: Any, solutions: Sequence[Any], solution_indices: Any) -> list[Any]:
        del ga_instance, solution_indices
        return list(map(fitness, list(solutions)))

    return evaluate
