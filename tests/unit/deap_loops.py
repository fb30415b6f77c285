"""DEAP's loops with a stand-in for durable state, which survives a process that dies at a commit."""

from __future__ import annotations

import functools
import pickle
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from deap import base, cma, creator, tools

from resilient_scoop.payload import payload
from resilient_scoop.task_state import rng

NGEN = 8

creator.create("ContribMax", base.Fitness, weights=(1.0,))
creator.create("ContribBits", list, fitness=creator.ContribMax)
creator.create("ContribMin", base.Fitness, weights=(-1.0,))
creator.create("ContribVector", list, fitness=creator.ContribMin)


class StoppedError(Exception):
    """Raised where the process dies."""


@dataclass
class Disk:
    """The last commit, which outlives a process; and the commit at which the process dies."""

    kept: bytes | None = None
    commits: int = 0
    die_after: int | None = None
    names: list[str] = field(default_factory=list)
    every_s: set[Any] = field(default_factory=set)


class FakeDurable:
    """A stand-in for `checkpoint.durable` that pickles at each commit and loads from the disk."""

    def __init__(self, disk: Disk, name: str = "main", **initial: Any) -> None:
        disk.names.append(name)
        self.__dict__["disk"] = disk
        self.__dict__["state"] = initial

    def __enter__(self) -> Any:
        if self.disk.kept is not None:
            state, streams = payload.loads(self.disk.kept)
            self.__dict__["state"] = state
            rng.restore(pickle.loads(streams))
        else:
            made = {key: each() if callable(each) else each for key, each in self.state.items()}
            self.__dict__["state"] = made
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def __getattr__(self, name: str) -> Any:
        return self.state[name]

    def __setattr__(self, name: str, value: Any) -> None:
        self.state[name] = value

    def commit(self, every_s: Any = None) -> None:
        self.disk.kept = payload.dumps((self.state, pickle.dumps(rng.save())))
        self.disk.commits += 1
        self.disk.every_s.add(every_s)
        if self.disk.commits == self.disk.die_after:
            raise StoppedError


def stand_in(monkeypatch: pytest.MonkeyPatch) -> Disk:
    """Make the loops commit to a new disk; return it."""
    disk = Disk()
    monkeypatch.setattr("resilient_scoop.checkpoint.durable", functools.partial(FakeDurable, disk))
    return disk


@dataclass
class World:
    """The objects that a script makes before it calls the loop."""

    toolbox: base.Toolbox
    population: list[Any]
    stats: tools.Statistics
    best: Any
    strategy: Any = None


def ones(individual: list[int]) -> tuple[float]:
    return (float(sum(individual)),)


def sphere(individual: list[float]) -> tuple[float]:
    return (float(sum(x * x for x in individual)),)


def make_world(seed: int, *, strategy: Callable[[], Any] | None = None) -> World:
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - the stream that DEAP's CMA-ES draws from
    toolbox = base.Toolbox()
    toolbox.register("bit", random.randint, 0, 1)
    toolbox.register("individual", tools.initRepeat, creator.ContribBits, toolbox.bit, 20)
    toolbox.register("population", tools.initRepeat, list, toolbox.individual)
    toolbox.register("evaluate", ones if strategy is None else sphere)
    toolbox.register("mate", tools.cxTwoPoint)
    toolbox.register("mutate", tools.mutFlipBit, indpb=0.05)
    toolbox.register("select", tools.selTournament, tournsize=3)
    stats = tools.Statistics(lambda ind: ind.fitness.values[0])
    stats.register("max", max)
    stats.register("mean", lambda values: sum(values) / len(values))
    best = tools.HallOfFame(3)
    if strategy is None:
        return World(toolbox, toolbox.population(n=24), stats, best)
    made = strategy()
    toolbox.register("generate", made.generate, creator.ContribVector)
    toolbox.register("update", made.update)
    return World(toolbox, [], stats, best, made)


def cma_es() -> cma.Strategy:
    return cma.Strategy(centroid=[3.0] * 4, sigma=2.0, lambda_=8)


def one_plus_lambda() -> cma.StrategyOnePlusLambda:
    parent = creator.ContribVector([2.0, -1.0, 0.5])
    parent.fitness.values = sphere(parent)
    return cma.StrategyOnePlusLambda(parent, sigma=1.0, lambda_=6)


def eaSimple(module: Any, world: World, **more: Any) -> Any:  # noqa: N802
    return module.eaSimple(
        world.population, world.toolbox, 0.5, 0.3, NGEN, world.stats, world.best, **more
    )


def plus(module: Any, world: World, **more: Any) -> Any:
    return module.eaMuPlusLambda(
        world.population, world.toolbox, 24, 30, 0.5, 0.3, NGEN, world.stats, world.best, **more
    )


def comma(module: Any, world: World, **more: Any) -> Any:
    return module.eaMuCommaLambda(
        world.population, world.toolbox, mu=24, lambda_=30, cxpb=0.5, mutpb=0.3, ngen=NGEN,
        stats=world.stats, halloffame=world.best, **more,
    )  # fmt: skip


def generate(module: Any, world: World, **more: Any) -> Any:
    return module.eaGenerateUpdate(world.toolbox, NGEN, world.best, world.stats, **more)


LOOPS: dict[str, tuple[Any, Any]] = {
    "eaSimple": (eaSimple, None),
    "eaMuPlusLambda": (plus, None),
    "eaMuCommaLambda": (comma, None),
    "eaGenerateUpdate": (generate, cma_es),
    "eaGenerateUpdate of one parent": (generate, one_plus_lambda),
}


def seen(result: Any, world: World) -> Any:
    """Return all visible results of a run, in a form that is compared bit by bit."""
    population, logbook = result
    return (
        [(list(each), each.fitness.values) for each in population],
        list(logbook),
        logbook.header,
        str(logbook),
        [(list(each), each.fitness.values) for each in world.best],
        random.getstate(),
        np.random.get_state(legacy=False)["state"]["key"].tolist(),  # noqa: NPY002
    )


def run(loop: str, module: Any, seed: int, **more: Any) -> Any:
    call, strategy = LOOPS[loop]
    world = make_world(seed, strategy=strategy)
    return seen(call(module, world, **more), world)
