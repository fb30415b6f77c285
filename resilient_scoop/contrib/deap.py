"""DEAP's loops with checkpoints: the same calls and results, and a crash costs seconds.

    from resilient_scoop.contrib.deap import eaSimple

    population, logbook = eaSimple(population, toolbox, cxpb=0.5, mutpb=0.2, ngen=10_000)

Signatures, order of random draws, statistics and output are those of `deap.algorithms`: for equal
random streams the results are equal to the last bit. After every generation the state of the loop
(population, hall of fame, logbook, strategy, number of the generation) can become a checkpoint;
`every_s` limits how often ("auto": at most 1 % of the time), `name` distinguishes several loops of
one parent. A restart also restores `random` and `numpy.random`.

The restored state is put into the objects that the caller passed: references to the population, the
hall of fame or the strategy see the restored one. Statistics and operators are not saved, so an
operator must not keep state of its own.

Without `rscoop` they are just DEAP's loops.
"""

from __future__ import annotations

import functools
import types
from typing import TYPE_CHECKING, Any

from resilient_scoop import checkpoint
from resilient_scoop.errors import UsageError

try:
    from deap import tools
    from deap.algorithms import varAnd, varOr
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "resilient_scoop.contrib.deap needs DEAP: pip install deap", name=error.name
    ) from error

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    Population = list[Any]
    Result = tuple[Population, Any]
    EveryS = float | str | None

__all__ = ["eaGenerateUpdate", "eaMuCommaLambda", "eaMuPlusLambda", "eaSimple"]


def eaSimple(
    population: Population,
    toolbox: Any,
    cxpb: float,
    mutpb: float,
    ngen: int,
    stats: Any = None,
    halloffame: Any = None,
    verbose: bool = __debug__,
    *,
    every_s: EveryS = "auto",
    name: str | None = None,
) -> Result:
    """As `deap.algorithms.eaSimple`: select, vary, replace all; return (population, logbook)."""
    loop = _Loop(toolbox, stats, halloffame, verbose, every_s, name or "eaSimple")

    def breed() -> Population:
        chosen = toolbox.select(population, len(population))
        return list(varAnd(chosen, toolbox, cxpb, mutpb))

    return loop.evolve(population, ngen, breed, lambda offspring: offspring)


def eaMuPlusLambda(
    population: Population,
    toolbox: Any,
    mu: int,
    lambda_: int,
    cxpb: float,
    mutpb: float,
    ngen: int,
    stats: Any = None,
    halloffame: Any = None,
    verbose: bool = __debug__,
    *,
    every_s: EveryS = "auto",
    name: str | None = None,
) -> Result:
    """As `deap.algorithms.eaMuPlusLambda`: the best `mu` of parents and offspring survive."""
    loop = _Loop(toolbox, stats, halloffame, verbose, every_s, name or "eaMuPlusLambda")

    def succeed(offspring: Population) -> Population:
        return list(toolbox.select(population + offspring, mu))

    return loop.evolve(population, ngen, _vary(population, toolbox, lambda_, cxpb, mutpb), succeed)


def eaMuCommaLambda(
    population: Population,
    toolbox: Any,
    mu: int,
    lambda_: int,
    cxpb: float,
    mutpb: float,
    ngen: int,
    stats: Any = None,
    halloffame: Any = None,
    verbose: bool = __debug__,
    *,
    every_s: EveryS = "auto",
    name: str | None = None,
) -> Result:
    """As `deap.algorithms.eaMuCommaLambda`: only the best `mu` of the offspring survive.

    Raises:
        UsageError: `lambda_` is smaller than `mu`.
    """
    if lambda_ < mu:
        raise UsageError(f"lambda_={lambda_} offspring are too few to choose mu={mu} of them")
    loop = _Loop(toolbox, stats, halloffame, verbose, every_s, name or "eaMuCommaLambda")

    def succeed(offspring: Population) -> Population:
        return list(toolbox.select(offspring, mu))

    return loop.evolve(population, ngen, _vary(population, toolbox, lambda_, cxpb, mutpb), succeed)


def _vary(
    population: Population, toolbox: Any, lambda_: int, cxpb: float, mutpb: float
) -> Callable[[], Population]:
    """Return a function that makes `lambda_` offspring of the present population."""
    return lambda: list(varOr(population, toolbox, lambda_, cxpb, mutpb))


def eaGenerateUpdate(
    toolbox: Any,
    ngen: int,
    halloffame: Any = None,
    stats: Any = None,
    verbose: bool = __debug__,
    *,
    strategy: Any = None,
    every_s: EveryS = "auto",
    name: str | None = None,
) -> Result:
    """As `deap.algorithms.eaGenerateUpdate`: ask `toolbox.generate`, tell `toolbox.update`.

    The state of these two (CMA-ES: the centroid, the step size, the covariances) is part of the
    checkpoint. It is found if they are methods of an object, as in `toolbox.register("generate",
    strategy.generate, creator.Individual)`. If they are not, pass the object, or a tuple of
    objects, as `strategy`; `()` means that there is no state.

    Raises:
        UsageError: `generate` or `update` is not registered, or its object cannot be found.
    """
    loop = _Loop(toolbox, stats, halloffame, verbose, every_s, name or "eaGenerateUpdate")
    return loop.generate(ngen, _strategies(toolbox, strategy))


class _Loop:
    """The common part of the four loops."""

    def __init__(
        self, toolbox: Any, stats: Any, halloffame: Any, verbose: bool, every_s: EveryS, name: str
    ) -> None:
        self.toolbox = toolbox
        self.stats = stats
        self.halloffame = halloffame
        self.verbose = verbose
        self.every_s = every_s
        self.name = name
        self.logbook = tools.Logbook()
        self.logbook.header = ["gen", "nevals", *(stats.fields if stats else [])]

    def evolve(
        self,
        population: Population,
        ngen: int,
        breed: Callable[[], Population],
        succeed: Callable[[Population], Population],
    ) -> Result:
        """Evaluate the population, then breed and replace `ngen` times."""
        with self._durable(population, ()) as state:
            if state.gen >= 0:
                population[:] = state.population
                state.population = population
                self._take_back(state, ())
            for gen in range(state.gen + 1, ngen + 1):
                offspring = breed() if gen else population
                unknown = [each for each in offspring if not each.fitness.valid]
                self._assess(unknown, offspring)
                if gen:
                    population[:] = succeed(offspring)
                self._end(state, gen, len(unknown), population)
        return population, self.logbook

    def generate(self, ngen: int, strategies: tuple[Any, ...]) -> Result:
        """Generate and update `ngen` times."""
        population: Population = []
        with self._durable(population, strategies) as state:
            if state.gen >= 0:
                population = state.population
                self._take_back(state, strategies)
            for gen in range(state.gen + 1, ngen):
                population = state.population = self.toolbox.generate()
                self._assess(population, population)
                self.toolbox.update(population)
                self._end(state, gen, len(population), population)
        return population, self.logbook

    def _assess(self, unknown: Population, offspring: Population) -> None:
        """Evaluate individuals without a fitness; update the hall of fame."""
        fitnesses: Iterable[Any] = self.toolbox.map(self.toolbox.evaluate, unknown)
        for individual, fitness in zip(unknown, fitnesses, strict=True):
            individual.fitness.values = fitness
        if self.halloffame is not None:
            self.halloffame.update(offspring)

    def _end(self, state: Any, gen: int, evaluated: int, population: Population) -> None:
        """Finish a generation: record, print and commit it."""
        record = self.stats.compile(population) if self.stats is not None else {}
        self.logbook.record(gen=gen, nevals=evaluated, **record)
        if self.verbose:
            print(self.logbook.stream)  # noqa: T201 - as DEAP does
        state.gen = gen
        state.commit(every_s=self.every_s)

    def _durable(self, population: Population, strategies: tuple[Any, ...]) -> Any:
        """Open the block. All initial values are functions, because callable objects would be called."""
        return checkpoint.durable(
            self.name,
            population=lambda: population,
            halloffame=lambda: self.halloffame,
            strategies=lambda: strategies,
            logbook=lambda: self.logbook,
            gen=-1,
        )

    def _take_back(self, state: Any, strategies: tuple[Any, ...]) -> None:
        """After a restart, put the restored state into the objects of the caller."""
        self.logbook = state.logbook
        if self.halloffame is not None and state.halloffame is not None:
            _become(self.halloffame, state.halloffame)
        if [type(each) for each in state.strategies] != [type(each) for each in strategies]:
            raise UsageError(
                f"the checkpoint of {self.name} holds {_kinds(state.strategies)}, the toolbox now "
                f"has {_kinds(strategies)}: register the same kind of strategy again, or give the "
                "loop another name= to start from the beginning"
            )
        for mine, kept in zip(strategies, state.strategies, strict=True):
            _become(mine, kept)
        state.halloffame, state.strategies = self.halloffame, strategies


def _kinds(objects: Sequence[Any]) -> str:
    return ", ".join(type(each).__name__ for each in objects) or "no strategy"


def _become(mine: Any, kept: Any) -> None:
    """Give an object the state of another one of its class, as unpickling would."""
    state = kept.__getstate__()
    if hasattr(mine, "__setstate__"):
        mine.__setstate__(state)
        return
    attributes, slots = state if isinstance(state, tuple) else (state, None)
    if hasattr(mine, "__dict__"):
        vars(mine).clear()
        vars(mine).update(attributes or {})
    for name, value in (slots or {}).items():
        setattr(mine, name, value)


def _strategies(toolbox: Any, given: Any) -> tuple[Any, ...]:
    """Return the objects whose state `toolbox.generate` and `toolbox.update` change, each once."""
    for alias in ("generate", "update"):
        if not hasattr(toolbox, alias):
            raise UsageError(
                f"the toolbox has no `{alias}`: register it, as in "
                f"toolbox.register({alias!r}, strategy.{alias}, ...)"
            )
    if given is not None:
        return tuple(given) if isinstance(given, tuple | list) else (given,)
    found: list[Any] = []
    for alias in ("generate", "update"):
        owner = _owner(getattr(toolbox, alias))
        if owner is None:
            raise UsageError(
                f"toolbox.{alias} is not a method of an object, so its state cannot be found and "
                "would be missing in the checkpoint: give the object (or a tuple of objects) as "
                "strategy=, or strategy=() if it has no state"
            )
        if not any(owner is each for each in found):
            found.append(owner)
    return tuple(found)


def _owner(function: Any) -> Any:
    """Return the object of a method, inside the wrappers of `register` and decorators."""
    while True:
        if isinstance(function, functools.partial):
            function = function.func
        elif isinstance(owner := getattr(function, "__self__", None), type | types.ModuleType):
            return None
        elif owner is not None:
            return owner
        elif hasattr(function, "__wrapped__"):
            function = function.__wrapped__
        else:
            return None
