"""pygmo: a batch evaluator and an island whose work is done by calls of a run.

    from resilient_scoop.contrib.pygmo import BatchEvaluator, Island

    evaluator = pygmo.bfe(BatchEvaluator())
    archipelago = pygmo.archipelago(n=4, udi=Island(), algo=algorithm, prob=problem, pop_size=20)

Islands are evolved by threads of pygmo, several at once, so the order of migrations depends on time.
Give algorithms, populations and the archipelago a seed. In a session or with an executor:
`BatchEvaluator(session.map)`, `Island(session.submit)`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from resilient_scoop import futures

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["BatchEvaluator", "Island"]


class _Shared:
    """The state that pygmo copies for each of its objects; sessions in it are shared, not copied."""

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), ()  # tasks and saved archipelagos make calls of their own run


class BatchEvaluator(_Shared):
    """A user-defined batch fitness evaluator: each decision vector is a call.

    `map` defaults to `futures.map`; a session's or an executor's fits, too.
    """

    def __init__(
        self,
        map: Callable[..., Iterable[Any]] = futures.map,  # noqa: A002 - the usual name
    ) -> None:
        self._map = map

    def __call__(self, prob: Any, dvs: Any) -> Any:
        """Return the fitness vectors of a flat array of decision vectors, as a flat array."""
        import numpy as np

        rows = dvs.reshape(-1, prob.get_nx())
        written_in_python = prob.extract(object)
        evaluate = (prob if written_in_python is None else written_in_python).fitness
        fitness = list(self._map(evaluate, rows))
        return np.concatenate(fitness) if fitness else np.empty(0)

    def get_name(self) -> str:
        """Return its name."""
        return "Batch evaluator of resilient_scoop"


class Island(_Shared):
    """A user-defined island: each evolution of its population is a call.

    `submit` defaults to `futures.submit`; that of a session or an executor fits, too.
    """

    def __init__(self, submit: Callable[..., Any] = futures.submit) -> None:
        self._submit = submit

    def run_evolve(self, algo: Any, pop: Any) -> tuple[Any, Any]:
        """Return the algorithm and the evolved population."""
        evolved: tuple[Any, Any] = self._submit(_evolve, algo, pop).result()
        return evolved

    def get_name(self) -> str:
        """Return its name."""
        return "Island of resilient_scoop"


def _evolve(algo: Any, pop: Any) -> tuple[Any, Any]:
    return algo, algo.evolve(pop)
