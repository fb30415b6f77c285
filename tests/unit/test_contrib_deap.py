"""DEAP's loops, checkpointed: equal to DEAP's own to the last bit, also where they start again."""

from __future__ import annotations

import functools
import pickle
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from deap import algorithms, base, cma, creator, tools

from resilient_scoop.adapters import payload, rng
from resilient_scoop.contrib import deap as contrib
from resilient_scoop.errors import UsageError

SEEDS = (1, 2, 3, 4)
NGEN = 8

creator.create("ContribMax", base.Fitness, weights=(1.0,))
creator.create("ContribBits", list, fitness=creator.ContribMax)
creator.create("ContribMin", base.Fitness, weights=(-1.0,))
creator.create("ContribVector", list, fitness=creator.ContribMin)


class StoppedError(Exception):
    """The process has died."""


@dataclass
class Disk:
    """What outlives a process: the last commit; and when the process is to die."""

    kept: bytes | None = None
    commits: int = 0
    die_after: int | None = None
    names: list[str] = field(default_factory=list)
    every_s: set[Any] = field(default_factory=set)


class FakeDurable:
    """A stand-in for `checkpoint.durable` that pickles at each commit and loads what is on the disk."""

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


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    found = Disk()
    monkeypatch.setattr("resilient_scoop.checkpoint.durable", functools.partial(FakeDurable, found))
    return found  # type: ignore[return-value]


@dataclass
class World:
    """What a script makes before it calls the loop."""

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
each_loop = pytest.mark.parametrize("loop", LOOPS)
each_seed = pytest.mark.parametrize("seed", SEEDS)


def seen(result: Any, world: World) -> Any:
    """Return all that can be seen of a run, in a form that compares bit by bit."""
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


@each_loop
@each_seed
def test_a_loop_comes_to_what_deap_s_own_comes_to(
    loop: str, seed: int, disk: Disk, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = run(loop, algorithms, seed, verbose=True)
    printed = capsys.readouterr().out

    assert run(loop, contrib, seed, verbose=True) == expected
    assert capsys.readouterr().out == printed
    assert disk.commits == (NGEN if loop.startswith("eaGenerate") else NGEN + 1)
    assert disk.every_s == {"auto"}


@each_loop
@pytest.mark.parametrize("commits", range(1, NGEN + 1))
def test_a_loop_that_starts_again_anywhere_comes_to_the_same(
    loop: str, commits: int, disk: Disk
) -> None:
    call, strategy = LOOPS[loop]
    expected = run(loop, algorithms, 7, verbose=False)
    disk.die_after = commits
    with pytest.raises(StoppedError):
        run(loop, contrib, 7, verbose=False)

    # When the script begins again from its top, in another process
    world = make_world(7, strategy=strategy)
    mine, best, made = world.population, world.best, world.strategy
    result = call(contrib, world, verbose=False)

    # Then all is equal, and what came back is in the objects that the script holds
    assert seen(result, world) == expected
    if strategy is None:
        assert result[0] is mine
    assert [list(each) for each in best] == [row for row, _ in expected[4]]
    for alias in ("generate", "update") if made is not None else ():
        assert getattr(world.toolbox, alias).func.__self__ is made


@each_loop
def test_printed_lines_are_printed_once(
    loop: str, disk: Disk, capsys: pytest.CaptureFixture[str]
) -> None:
    run(loop, algorithms, 3, verbose=True)
    expected = capsys.readouterr().out
    disk.die_after = 4
    with pytest.raises(StoppedError):
        run(loop, contrib, 3, verbose=True)
    run(loop, contrib, 3, verbose=True)

    assert capsys.readouterr().out == expected


def test_a_loop_without_statistics_and_hall_of_fame(disk: Disk) -> None:
    first, second = make_world(5), make_world(5)
    random.seed(1)
    theirs, _ = algorithms.eaSimple(first.population, first.toolbox, 0.5, 0.2, 4, verbose=False)
    random.seed(1)
    mine, logbook = contrib.eaSimple(second.population, second.toolbox, 0.5, 0.2, 4, verbose=False)

    assert [list(each) for each in mine] == [list(each) for each in theirs]
    assert logbook.select("gen") == [0, 1, 2, 3, 4]


def test_the_name_and_the_interval_are_passed_on(disk: Disk) -> None:
    run("eaSimple", contrib, 1, verbose=False, name="first", every_s=30.0)
    disk.kept = None
    run("eaSimple", contrib, 1, verbose=False)

    assert disk.names == ["first", "eaSimple"]
    assert disk.every_s == {30.0, "auto"}


def test_no_generation_at_all(disk: Disk) -> None:
    world = make_world(1, strategy=cma_es)
    population, logbook = contrib.eaGenerateUpdate(world.toolbox, 0)
    assert (population, list(logbook)) == ([], [])


def test_too_few_offspring_are_refused(disk: Disk) -> None:
    world = make_world(1)
    with pytest.raises(UsageError, match="lambda_=3 offspring are too few to choose mu=5"):
        contrib.eaMuCommaLambda(world.population, world.toolbox, 5, 3, 0.5, 0.5, 1)


# --- the strategy behind a toolbox -------------------------------------------------------------


class Split:
    """A strategy whose two methods are of two objects."""

    def __init__(self) -> None:
        self.calls = 0

    def generate(self, kind: Any) -> list[Any]:
        self.calls += 1
        return [kind([self.calls, random.random()])]

    def update(self, population: list[Any]) -> None:
        self.calls += len(population)


def decorated(function: Any) -> Any:
    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return wrapper


def hidden(function: Any) -> Any:
    """Return a function that does the same, and of which nobody can tell."""

    def plain(*args: Any) -> Any:
        return function(*args)

    return plain


def make_box(generate: Any, update: Any) -> base.Toolbox:
    toolbox = base.Toolbox()
    toolbox.register("generate", generate, creator.ContribVector)
    toolbox.register("update", update)
    toolbox.register("evaluate", sphere)
    return toolbox


def test_the_strategy_is_found_below_decorators_and_in_two_objects() -> None:
    one, two = Split(), Split()
    toolbox = make_box(decorated(one.generate), functools.partial(functools.partial(two.update)))

    assert contrib._strategies(toolbox, None) == (one, two)
    assert contrib._strategies(make_box(one.generate, one.update), None) == (one,)
    assert contrib._strategies(toolbox, two) == (two,)
    assert contrib._strategies(toolbox, ()) == ()


@pytest.mark.parametrize("alias", ["generate", "update"])
def test_a_strategy_that_cannot_be_found_is_asked_for(alias: str) -> None:
    one = Split()
    calls: dict[str, Any] = {"generate": one.generate, "update": one.update}
    calls[alias] = hidden(calls[alias])
    toolbox = make_box(**calls)

    with pytest.raises(UsageError, match=rf"toolbox\.{alias} is no method.*strategy="):
        contrib.eaGenerateUpdate(toolbox, 1)


def test_a_strategy_that_is_given_comes_back_into_the_same_object(disk: Disk) -> None:
    def play() -> tuple[Any, Split]:
        one = Split()
        toolbox = make_box(hidden(one.generate), hidden(one.update))
        return contrib.eaGenerateUpdate(toolbox, 5, strategy=one, verbose=False), one

    random.seed(2)
    (expected, _), _ = play()
    disk.kept, disk.commits, disk.die_after = None, 0, 2
    random.seed(2)
    with pytest.raises(StoppedError):
        play()
    random.seed(2)
    (population, _), one = play()

    assert [list(each) for each in population] == [list(each) for each in expected]
    assert one.calls == 10


def test_a_toolbox_without_update_is_refused() -> None:
    toolbox = base.Toolbox()
    toolbox.register("generate", Split().generate, list)
    with pytest.raises(UsageError, match="the toolbox has no `update`"):
        contrib.eaGenerateUpdate(toolbox, 1)


def test_another_kind_of_strategy_than_the_checkpoint_s_is_refused(disk: Disk) -> None:
    disk.die_after = 2
    with pytest.raises(StoppedError):
        run("eaGenerateUpdate", contrib, 1, verbose=False)

    with pytest.raises(UsageError, match="holds Strategy, the toolbox now has StrategyOnePlus"):
        run("eaGenerateUpdate of one parent", contrib, 1, verbose=False)


class Slotted:
    """A strategy without a dictionary."""

    __slots__ = ("at",)

    def __init__(self, at: int) -> None:
        self.at = at


class Own:
    """A strategy that says itself how its state is put back."""

    def __init__(self, at: int) -> None:
        self.at = at
        self.lock = object()

    def __getstate__(self) -> int:
        return self.at

    def __setstate__(self, at: int) -> None:
        self.at = at


def test_an_object_takes_the_state_of_another_as_unpickling_would() -> None:
    mine, own = Slotted(1), Own(1)
    lock = own.lock
    contrib._become(mine, Slotted(5))
    contrib._become(own, Own(6))

    assert (mine.at, own.at, own.lock is lock) == (5, 6, True)
