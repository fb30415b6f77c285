"""Runs on three workstations that fail: the answer is that of `python script.py`, and nothing is left."""

from __future__ import annotations

import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from chaos import command, rounds
from chaos.command import Place
from chaos.evidence import Ledger
from chaos.grid import GRID_WORKLOADS, Grid, GridResult, leftovers
from chaos.hostfaults import AT_DESK, SHAPES, Drawn, Fault
from chaos.lab import DESK, Lab
from tests.integration.runs import wait_until

pytestmark = [pytest.mark.grid, pytest.mark.timeout(180)]

SLOW = 3.0
LEFT_S = 5.0
LASTS_S = {
    Fault.SLEEP: 13.0,
    Fault.CUT: 13.0,
    Fault.CUT_IN: 13.0,
    Fault.CUT_OUT: 3.0,
    Fault.CABLE: 3.0,
}
"""Some last longer than the silence after which a host counts as lost (10 s), some shorter."""
SHORT = [
    Fault.WORKER_KILL, Fault.AGENT_KILL, Fault.GUARDIAN_KILL, Fault.BROKER_KILL, Fault.LAUNCHER_KILL,
    Fault.POWER_OFF, Fault.SLEEP, Fault.CUT_OUT, Fault.RESET,
]  # fmt: skip
OTHERS = [
    kind for kind in Fault if kind not in {*SHORT, *SHAPES, Fault.BROKER_STOP, Fault.ORIGIN_KILL}
]  # fmt: skip
LONG = pytest.mark.chaos
"""Not with each commit: `pytest -m grid` runs them, `tox -e grid` does not."""


@pytest.fixture(scope="session")
def games() -> dict[str, Grid]:
    """The measurements of workloads on each lab, so that each is measured once."""
    return {}


def grid_on(lab: Lab, games: dict[str, Grid], kept: Path) -> Grid:
    if lab.kind not in games:
        drawn = ("plain_ea",) if lab.kind == "tun" else GRID_WORKLOADS
        games[lab.kind] = Grid(lab, kept, drawn, slow=SLOW)
    return games[lab.kind]


def assert_clean(result: GridResult) -> None:
    assert [str(each) for each in result.violations] == []
    assert result.unproven == []


@pytest.fixture
def grid(lab: Lab, games: dict[str, Grid], tmp_path: Path) -> Grid:
    return grid_on(lab, games, tmp_path)


@pytest.fixture
def tun_grid(tun_lab: Lab, games: dict[str, Grid], tmp_path: Path) -> Grid:
    return grid_on(tun_lab, games, tmp_path)


@pytest.mark.parametrize("workload", ["plain_ea", "plain_nested", "as_completed"])
def test_a_run_on_three_hosts_has_the_answer_of_a_serial_run(grid: Grid, workload: str) -> None:
    result = grid.play_faults(0, workload, [])
    assert_clean(result)
    assert result.repeated == 0


@pytest.mark.parametrize("kind", [*SHORT, *(pytest.param(kind, marks=LONG) for kind in OTHERS)])
def test_a_run_survives(grid: Grid, kind: Fault) -> None:
    host = DESK if kind in AT_DESK else "bob"
    drawn = Drawn(kind, host, 0.5, LASTS_S.get(kind, 4.0), 1)
    result = grid.play_faults(0, "plain_ea", [drawn])
    assert_clean(result)
    assert result.by_role() == {str(kind): 1}


@LONG
@pytest.mark.parametrize("kind", SHAPES)
def test_a_run_survives_a_network_with(tun_grid: Grid, kind: Fault) -> None:
    result = tun_grid.play_faults(0, "plain_ea", [Drawn(kind, "bob", 0.5, 20.0, 0)])
    assert_clean(result)
    assert result.by_role() == {str(kind): 1}


def test_a_run_survives_the_loss_of_two_hosts(grid: Grid) -> None:
    drawn = [
        Drawn(Fault.POWER_OFF, host, at, 0.0, 0) for host, at in (("alice", 0.4), ("carol", 0.6))
    ]
    assert_clean(grid.play_faults(0, "plain_nested", drawn))


def test_a_run_survives_rounds_drawn_from_seeds(tun_grid: Grid) -> None:
    for seed in range(2):
        assert_clean(tun_grid.play(seed))


def established(lab: Lab, name: str) -> int:
    """Return how many TCP connections a host has to the desk, other than SSH's."""
    lines = lab.exec(name, ["ss", "-Htn", "state", "established"]).stdout.splitlines()
    return sum(":22 " not in line for line in lines)


def test_a_drained_host_loses_no_work(grid: Grid, place: Place) -> None:
    process = begin(grid, place)
    assert command.ask(place, "drain", "bob")[0] == 0
    asked_at = time.monotonic()
    assert process.wait(60) == 0
    lines = Ledger(place.root / "ledger").lines()
    starts = Counter(line.path for line in lines if line.is_start)
    assert set(starts.values()) == {1}
    late = [line for line in lines if line.host == "bob" and line.at_s > asked_at + 3.0]
    assert late == []
    assert place.output() == grid.reference("plain_ea").output
    assert_nothing_left(grid.lab)


def test_a_revoked_host_is_cut_off_within_a_second(grid: Grid, place: Place) -> None:
    process = begin(grid, place)
    wait_until(lambda: established(grid.lab, "carol") > 0)
    assert command.ask(place, "revoke", "carol")[0] == 0
    wait_until(lambda: established(grid.lab, "carol") == 0, 1.0)
    asked_at = time.monotonic()
    assert process.wait(60) == 0
    late = [
        line for line in Ledger(place.root / "ledger").lines()
        if line.host == "carol" and line.is_start and line.at_s > asked_at + 1.5
    ]  # fmt: skip
    assert late == []
    assert place.output() == grid.reference("plain_ea").output
    assert_nothing_left(grid.lab)


@pytest.fixture
def place(grid: Grid) -> Iterator[Place]:
    """A folder that all hosts see; its commands run on the desk."""
    with rounds.staged(GridResult(0, Path(), []), grid.kept, grid.lab.shared) as made:
        yield grid.settle(made)


def has_workers(lab: Lab, name: str) -> bool:
    """Return whether a host has workers of a run."""
    return any(" worker " in words for words in lab.processes(name).values())


def begin(grid: Grid, place: Place) -> subprocess.Popen[bytes]:
    """Start a run; return when all hosts have workers, and something was printed."""
    process = command.start(place, grid.run_arguments(rounds.script_of("plain_ea")))
    wait_until(lambda: place.output_bytes() > 0, 60.0, place.err.read_text)
    for host in grid.lab.hosts:
        wait_until(lambda: has_workers(grid.lab, host), 30.0, place.err.read_text)  # noqa: B023
    return process


def assert_nothing_left(lab: Lab, within_s: float = LEFT_S) -> None:
    """Assert that no host has a process or a file of a run, and the desk no process."""

    def left() -> list[str]:
        at_desk = [f"desk: {words}" for words in lab.processes(DESK).values()]
        return at_desk + [text for host in lab.hosts for text in leftovers(lab, host)]

    wait_until(lambda: not left(), within_s, lambda: "\n".join(left()))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_nothing_is_left_of_a_run_that_was_asked_to_end(
    grid: Grid, place: Place, number: signal.Signals
) -> None:
    process = begin(grid, place)
    process.send_signal(number)
    assert process.wait(30) == 128 + number
    assert_nothing_left(grid.lab)


def test_nothing_is_left_of_a_run_whose_launcher_was_killed(grid: Grid, place: Place) -> None:
    process = begin(replace(grid, orphans_s=2.0), place)
    process.kill()
    process.wait()
    began = time.monotonic()
    assert_nothing_left(grid.lab, 2.0 + LEFT_S)
    assert time.monotonic() - began > 1.5  # they wait that long for a resume


def test_nothing_is_left_when_a_cut_host_returns_after_the_end_of_the_run(
    grid: Grid, place: Place
) -> None:
    """The host could not be told to end, so it ends after its orphan timeout."""
    process = begin(replace(grid, orphans_s=4.0), place)
    grid.lab.cut("carol")
    process.send_signal(signal.SIGTERM)
    process.wait(60)
    grid.lab.heal("carol")
    assert_nothing_left(grid.lab, 4.0 + LEFT_S)


def test_no_process_runs_on_a_host_that_was_switched_off_and_on_after_the_end(
    grid: Grid, place: Place
) -> None:
    process = begin(grid, place)
    grid.lab.power_off("carol")
    process.send_signal(signal.SIGTERM)
    process.wait(60)
    grid.lab.boot("carol")
    time.sleep(1.0)
    assert grid.lab.processes("carol") == {}
