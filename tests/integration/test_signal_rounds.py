"""Real runs that are asked to end at random moments: a few rounds as tests, many on request."""

from __future__ import annotations

import random
import signal
from pathlib import Path

import pytest

from chaos import rounds, signals
from chaos.nemesis import Kill, Moment
from chaos.processes import Role
from chaos.rounds import Reference
from chaos.signals import Volley

SEEDS = (2, 3, 8)
CAMPAIGN_SEEDS = range(1000, 1100)


@pytest.fixture(scope="module")
def references() -> list[Reference]:
    return [rounds.measure(rounds.script_of(name)) for name in signals.SIGNAL_WORKLOADS]


@pytest.mark.real
@pytest.mark.parametrize("seed", SEEDS)
def test_a_run_that_is_asked_to_end_gives_the_same_answer_and_leaves_nothing(
    seed: int, references: list[Reference], tmp_path: Path
) -> None:
    result = signals.play(seed, references, tmp_path)
    assert not result.violations, str(result)


@pytest.mark.real
@pytest.mark.parametrize(
    "role", [Role.EVERYTHING, Role.BROKER, Role.AGENT, Role.ORIGIN, Role.WORKER]
)
def test_processes_other_than_the_launcher_ignore_signals(
    role: Role, references: list[Reference], tmp_path: Path
) -> None:
    numbers: tuple[signal.Signals, ...] = (signal.SIGTERM,)
    if role is not Role.EVERYTHING:
        numbers += (signal.SIGUSR1, signal.SIGUSR2)
    volley = Volley(Kill(role, Moment.UNIFORM, 0.5, 0), numbers, (0.0,) * (len(numbers) - 1))
    result = signals.play_volleys(0, references[-1], [volley], tmp_path)
    assert not result.violations, str(result)
    assert result.resumes == (1 if role is Role.EVERYTHING else 0)
    assert result.repeated <= (4 if role is Role.EVERYTHING else 0), "no process has died of it"


@pytest.mark.chaos
@pytest.mark.timeout(7200)
def test_a_hundred_rounds_of_signals_break_no_guarantee(
    references: list[Reference], tmp_path: Path
) -> None:
    results = [signals.play(seed, references, tmp_path) for seed in CAMPAIGN_SEEDS]
    assert [str(result) for result in results if result.violations] == []


def test_a_seed_draws_the_same_volleys_each_time() -> None:
    assert signals.draw(random.Random(5)) == signals.draw(random.Random(5))
