"""pymoo: evaluate the individuals of an `ElementwiseProblem` as calls of a run.

    from resilient_scoop.contrib.pymoo import Runner

    problem = MyProblem(elementwise_runner=Runner())

`StarmapParallelization(Pool().starmap)` of pymoo works too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from resilient_scoop import futures

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    Map = Callable[..., Iterable[Any]]

__all__ = ["Runner"]


class Runner:
    """A runner of elementwise problems. `map` defaults to `futures.map`; an executor's fits, too."""

    def __init__(self, map: Map = futures.map) -> None:  # noqa: A002 - the usual name
        self._map = map

    def __call__(self, f: Callable[[Any], Any], X: Iterable[Any]) -> list[Any]:  # noqa: N803 - its name in pymoo
        """Return `f(x)` for each row of X, in order."""
        return list(self._map(f, X))

    def __getstate__(self) -> dict[str, Any]:
        """Return no state: pymoo sends the problem with each call, and tasks need no runner."""
        return {"_map": futures.map}
