"""pygmo: a batch evaluator and an island whose work is done by calls of a run.

    from resilient_scoop.contrib.pygmo import BatchEvaluator, Island

    evaluator = pygmo.bfe(BatchEvaluator())
    archipelago = pygmo.archipelago(n=4, udi=Island(), algo=algorithm, prob=problem, pop_size=20)

Islands are evolved by threads of pygmo, several at once, so the order of migrations depends on time.
Give algorithms, populations and the archipelago a seed.
"""

from __future__ import annotations

from typing import Any

from resilient_scoop import futures

__all__ = ["BatchEvaluator", "Island"]


class BatchEvaluator:
    """A user-defined batch fitness evaluator: each decision vector is a call."""

    def __call__(self, prob: Any, dvs: Any) -> Any:
        """Return the fitness vectors of a flat array of decision vectors, as a flat array."""
        import numpy as np

        rows = dvs.reshape(-1, prob.get_nx())
        written_in_python = prob.extract(object)
        evaluate = (prob if written_in_python is None else written_in_python).fitness
        fitness = list(futures.map(evaluate, rows))
        return np.concatenate(fitness) if fitness else np.empty(0)

    def get_name(self) -> str:
        """Return its name."""
        return "Batch evaluator of resilient_scoop"


class Island:
    """A user-defined island: each evolution of its population is a call."""

    def run_evolve(self, algo: Any, pop: Any) -> tuple[Any, Any]:
        """Return the algorithm and the evolved population."""
        return futures.submit(_evolve, algo, pop).result()

    def get_name(self) -> str:
        """Return its name."""
        return "Island of resilient_scoop"


def _evolve(algo: Any, pop: Any) -> tuple[Any, Any]:
    return algo, algo.evolve(pop)
