"""The whole system in virtual time, one seed after another; a failure prints how to replay it."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from tests.sim.grid import KINDS
from tests.sim.mutants import MUTANTS
from tests.sim.mutants_agent import AGENT_MUTANTS
from tests.sim.mutants_calls import CALL_MUTANTS
from tests.sim.mutants_checkpoints import CHECKPOINT_MUTANTS
from tests.sim.mutants_choice import CHOICE_MUTANTS
from tests.sim.mutants_compaction import COMPACTION_MUTANTS
from tests.sim.mutants_forget import FORGET_MUTANTS
from tests.sim.mutants_grid import GRID_MUTANTS
from tests.sim.mutants_missing import MISSING_MUTANTS
from tests.sim.mutants_moved import MOVED_MUTANTS
from tests.sim.mutants_once import ONCE_MUTANTS
from tests.sim.mutants_permission import PERMISSION_MUTANTS
from tests.sim.mutants_relay import RELAY_MUTANTS
from tests.sim.mutants_threads import THREAD_MUTANTS
from tests.sim.planting import Mutant, found_by
from tests.sim.programs import Step
from tests.sim.world import Climate, World

QUICK_SEEDS = 150
BLOCKS = 40
TROUBLED_SEEDS = 60
GRID_SEEDS = 80
ALL = (*MUTANTS, *CALL_MUTANTS, *CHECKPOINT_MUTANTS, *COMPACTION_MUTANTS, *FORGET_MUTANTS,
       *PERMISSION_MUTANTS, *ONCE_MUTANTS, *MOVED_MUTANTS, *MISSING_MUTANTS, *AGENT_MUTANTS,
       *CHOICE_MUTANTS, *GRID_MUTANTS, *RELAY_MUTANTS, *THREAD_MUTANTS)  # fmt: skip
AT_ONCE = (*MUTANTS[:4], *AGENT_MUTANTS[:4], *GRID_MUTANTS[:4])
MUTANT_SEEDS = 1200


def run_seed(seed: int, *, troubled: bool = False, grid: bool = False) -> World:
    world = World(seed, troubled=troubled, grid=grid)
    try:
        return world.run()
    except Exception as error:
        hosts = " --hosts" if troubled else " --grid" if grid else ""
        error.add_note(f"replay it with: python -m tests.sim {seed} --trace{hosts}")
        raise


@pytest.mark.parametrize("block", range(5))
def test_the_guarantees_hold_in_some_histories(block: int) -> None:
    size = QUICK_SEEDS // 5
    faults: Counter[str] = Counter()
    for seed in range(block * size, (block + 1) * size):
        faults += run_seed(seed).faults
    assert sum(faults.values()) > size, "a calm sea proves nothing"


def test_the_guarantees_hold_when_hosts_fail() -> None:
    faults: Counter[str] = Counter()
    for seed in range(TROUBLED_SEEDS):
        faults += run_seed(seed, troubled=True).faults
    kinds = (
        "unborn",
        "refuses",
        "early crash",
        "early oom",
        "early freed",
        "gave up",
        "launcher gone",
    )
    assert all(faults[kind] for kind in kinds), "a calm host proves nothing"


@pytest.mark.long
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("block", range(BLOCKS))
def test_the_guarantees_hold_in_many_histories_of_failing_hosts(block: int, seeds: int) -> None:
    for seed in range(1000 + block, 1000 + max(seeds // 4, BLOCKS), BLOCKS):
        run_seed(seed, troubled=True)


def test_the_guarantees_hold_when_other_hosts_join_and_leave() -> None:
    faults: Counter[str] = Counter()
    for seed in range(GRID_SEEDS):
        faults += run_seed(seed, grid=True).faults
    assert all(faults[f"host {kind}"] for kind in KINDS), "hosts that stay prove nothing"


@pytest.mark.long
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("block", range(BLOCKS))
def test_the_guarantees_hold_in_many_histories_of_other_hosts(block: int, seeds: int) -> None:
    for seed in range(1000 + block, 1000 + max(seeds, BLOCKS), BLOCKS):
        run_seed(seed, grid=True)


@pytest.mark.long
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("block", range(BLOCKS))
def test_the_guarantees_hold_in_many_histories(block: int, seeds: int) -> None:
    count = max(seeds, BLOCKS)
    for seed in range(1000 + block, 1000 + count, BLOCKS):
        run_seed(seed)


@pytest.mark.parametrize("seed", [3, 4, 5])
def test_the_same_seed_gives_the_same_history(seed: int) -> None:
    first, second = World(seed).run(), World(seed).run()

    assert (first.trace, first.now, first.events) == (second.trace, second.now, second.events)
    assert first.checks.output == second.checks.output


@pytest.mark.long
@pytest.mark.parametrize("mutant", ALL, ids=[mutant.name for mutant in ALL])
def test_a_planted_bug_is_found(mutant: Mutant) -> None:
    assert found_by(mutant, MUTANT_SEEDS) is not None


@pytest.mark.parametrize("mutant", AT_ONCE, ids=[mutant.name for mutant in AT_ONCE])
def test_a_planted_bug_is_found_at_once(mutant: Mutant) -> None:
    assert found_by(mutant, MUTANT_SEEDS) is not None


@pytest.mark.parametrize("seed", [1, 3, 5])
def test_callables_that_differ_in_each_generation_are_erased(seed: int) -> None:
    # Given a long loop that makes some 200 callables, under checkpoints, in which none must be kept
    steps: list[Step] = [("differing", "long", 60, 3)]
    weather: dict[str, Any] = {
        "rates": {"worker": 0.2, "broker": 0.2},
        "until": 6.0,
        "edits": False,
    }
    climate = replace(Climate.draw(random.Random(seed)), points={}, **weather)

    callables = World(seed, steps=steps, climate=climate).run().checks.callables

    # Then most are gone before its end
    assert callables.erased > 100
    assert callables.recorded_max < 80
    assert callables.held_max < 20
