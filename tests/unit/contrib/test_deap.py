"""DEAP's loops with checkpoints give the results of DEAP's own to the last bit, also after a restart."""

from __future__ import annotations

import random

import pytest
from deap import algorithms

from resilient_scoop.contrib import deap as contrib
from resilient_scoop.errors import UsageError
from tests.unit.deap_loops import (
    LOOPS,
    NGEN,
    Disk,
    StoppedError,
    cma_es,
    make_world,
    run,
    seen,
    stand_in,
)

SEEDS = (1, 2, 3, 4)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return stand_in(monkeypatch)


each_loop = pytest.mark.parametrize("loop", LOOPS)
each_seed = pytest.mark.parametrize("seed", SEEDS)


@each_loop
@each_seed
def test_a_loop_gives_the_same_result_as_deap_s_own(
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
def test_a_loop_restarted_at_any_generation_gives_the_same_result(
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

    # Then all is equal, and the restored state is in the objects that the script holds
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


def test_a_loop_works_without_statistics_and_hall_of_fame(disk: Disk) -> None:
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


def test_a_loop_of_zero_generations_gives_an_empty_logbook(disk: Disk) -> None:
    world = make_world(1, strategy=cma_es)
    population, logbook = contrib.eaGenerateUpdate(world.toolbox, 0)
    assert (population, list(logbook)) == ([], [])


def test_too_few_offspring_are_refused(disk: Disk) -> None:
    world = make_world(1)
    with pytest.raises(UsageError, match="lambda_=3 offspring are too few to choose mu=5"):
        contrib.eaMuCommaLambda(world.population, world.toolbox, 5, 3, 0.5, 0.5, 1)
