"""The strategy of a DEAP toolbox is found or requested, and restored into the object of the script."""

from __future__ import annotations

import functools
import random
from typing import Any

import pytest
from deap import base, creator

from resilient_scoop.contrib import deap as contrib
from resilient_scoop.errors import UsageError
from tests.unit.deap_loops import Disk, StoppedError, run, sphere, stand_in


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return stand_in(monkeypatch)


class Split:
    """A strategy whose two methods belong to two objects."""

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
    """Return a function that does the same, without a visible owner."""

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
def test_a_strategy_that_cannot_be_found_is_requested(alias: str) -> None:
    one = Split()
    calls: dict[str, Any] = {"generate": one.generate, "update": one.update}
    calls[alias] = hidden(calls[alias])
    toolbox = make_box(**calls)

    with pytest.raises(UsageError, match=rf"toolbox\.{alias} is not a method.*strategy="):
        contrib.eaGenerateUpdate(toolbox, 1)


def test_a_given_strategy_is_restored_into_the_same_object(disk: Disk) -> None:
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


def test_a_strategy_of_another_kind_than_in_the_checkpoint_is_refused(disk: Disk) -> None:
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
    """A strategy that restores its state itself."""

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
