"""Real runs under `kill -9`: a few rounds of `python -m chaos` as tests, many on request."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from chaos import checker, loops, nemesis, rounds
from chaos.evidence import Ledger, Snapshot
from chaos.loops import Campaign
from chaos.nemesis import Kill, Moment
from chaos.processes import OF_OTHER_HOSTS, Role
from chaos.rounds import Reference, Result

SEEDS = (1, 6, 11, 13, 100, 102)
CAMPAIGN_SEEDS = range(1000, 1200)


@pytest.fixture(scope="module")
def references() -> list[Reference]:
    return [rounds.measure(rounds.script_of(name)) for name in rounds.CALLS]


@pytest.mark.real
@pytest.mark.parametrize("seed", SEEDS)
def test_a_killed_run_gives_the_same_answer_and_leaves_nothing(
    seed: int, references: list[Reference], tmp_path: Path
) -> None:
    result = rounds.play(seed, references, tmp_path)
    assert not result.violations, str(result)


@pytest.mark.real
@pytest.mark.parametrize("role", [each for each in Role if each not in OF_OTHER_HOSTS])
def test_a_run_survives_the_death_of_any_part(
    role: Role, references: list[Reference], tmp_path: Path
) -> None:
    kill = Kill(role, Moment.UNIFORM, 0.5, 0)
    result = rounds.play_kills(0, references[0], [kill], tmp_path)
    assert not result.violations, str(result)
    assert result.by_role() == {str(role): 1}


@pytest.mark.real
@pytest.mark.parametrize("name", rounds.LOOPS)
def test_a_killed_loop_with_checkpoints_gives_the_same_answer(name: str, tmp_path: Path) -> None:
    reference = rounds.measure(rounds.script_of(name))
    result = rounds.play_kills(0, reference, [Kill(Role.POWER, Moment.ANY, 0.6, 0)], tmp_path)
    assert not result.violations, str(result)
    assert result.by_role() == {"power": 1}
    assert result.resumes == 1


@pytest.mark.chaos
@pytest.mark.timeout(7200)
def test_two_hundred_rounds_break_no_guarantee(references: list[Reference], tmp_path: Path) -> None:
    results = [rounds.play(seed, references, tmp_path) for seed in CAMPAIGN_SEEDS]
    assert [str(result) for result in results if result.violations] == []


def test_a_campaign_of_loops_reports_the_cost_of_a_kill() -> None:
    results = [Result(n, Path("ea.py"), [], lives_s=3.0 + n / 100) for n in range(101)]
    campaign = Campaign("ea", [2.9, 3.0, 3.5], results)
    assert "median 0.50 s, p99 0.99 s, at most 1.00 s" in str(campaign)


@pytest.mark.parametrize(("share", "value"), [(0.0, 1.0), (0.5, 2.0), (0.51, 3.0), (1.0, 4.0)])
def test_a_percentile_is_a_value_that_was_measured(share: float, value: float) -> None:
    assert loops.percentile([1.0, 2.0, 3.0, 4.0], share) == value


def test_a_seed_draws_the_same_kills_each_time() -> None:
    assert nemesis.draw(random.Random(5)) == nemesis.draw(random.Random(5))


def test_the_checker_finds_an_acknowledged_item_that_starts_again(tmp_path: Path) -> None:
    file = tmp_path / "ledger"
    file.write_text("start 0.1[0] 7 1.0\nend 0.1[0] 7 2.0\nstart 0.1[0].0[3] 8 3.0\n")
    snapshot = Snapshot(frozenset({"0.1[0]"}), 2)
    (violation,) = checker.check_ledger(Ledger(file), [snapshot], kills=1)
    assert violation.guarantee is checker.Guarantee.NO_LOST
    assert "0.1[0].0[3]" in violation.text


def test_the_checker_finds_a_side_effect_that_happens_twice(tmp_path: Path) -> None:
    file = tmp_path / "ledger"
    file.write_text("once 0.2[0] 7 1.0\nonce 0.2[0] 8 2.0\n")
    (violation,) = checker.check_ledger(Ledger(file), [], kills=1)
    assert violation.guarantee is checker.Guarantee.AT_MOST_ONCE


@pytest.mark.parametrize("output", [b"a\nb\n", b"a\nb\nb\nc\n", b"a\nc\nb\n"])
def test_the_checker_finds_lines_that_are_missing_doubled_or_swapped(output: bytes) -> None:
    assert checker.check_output(b"a\nb\nc\n", b"a\nb\nc\n") == []
    assert checker.check_output(output, b"a\nb\nc\n")
