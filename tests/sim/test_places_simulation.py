"""The places of a run in virtual time, one seed after another; a failure prints how to replay it."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.sim.mutants_places import PLACES_MUTANTS, PlacesMutant, found_by
from tests.sim.places import DISASTERS, MISCHIEF, World

QUICK_SEEDS = 150
BLOCKS = 8
MUTANT_SEEDS = 400
AT_ONCE = PLACES_MUTANTS[:4]


def run_seed(seed: int) -> World:
    try:
        return World(seed).run()
    except Exception as error:
        error.add_note(f"replay it with: python -m tests.sim.places {seed} --trace")
        raise


def test_each_host_has_one_agent_that_starts_and_ends_whatever_places_do() -> None:
    faults: Counter[str] = Counter()
    for seed in range(QUICK_SEEDS):
        faults += run_seed(seed).faults
    assert [kind for kind in (*MISCHIEF, *DISASTERS) if not faults[kind]] == []


@pytest.mark.long
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("block", range(BLOCKS))
def test_each_host_has_one_agent_that_starts_and_ends_in_many_histories(
    block: int, seeds: int
) -> None:
    for seed in range(1000 + block, 1000 + max(2 * seeds, BLOCKS), BLOCKS):
        run_seed(seed)


@pytest.mark.parametrize("seed", [3, 4, 5])
def test_the_same_seed_gives_the_same_history(seed: int) -> None:
    first, second = World(seed).run(), World(seed).run()

    assert (first.trace, first.now, first.events) == (second.trace, second.now, second.events)


@pytest.mark.long
@pytest.mark.parametrize("mutant", PLACES_MUTANTS, ids=[each.name for each in PLACES_MUTANTS])
def test_a_planted_bug_is_found(mutant: PlacesMutant) -> None:
    assert found_by(mutant, MUTANT_SEEDS) is not None


@pytest.mark.parametrize("mutant", AT_ONCE, ids=[each.name for each in AT_ONCE])
def test_a_planted_bug_is_found_at_once(mutant: PlacesMutant) -> None:
    assert found_by(mutant, MUTANT_SEEDS) is not None
