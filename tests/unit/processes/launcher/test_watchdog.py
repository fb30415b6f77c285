"""Whether a silent process is stopped, waits, or is in a loop, measured in the launcher's own time."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from resilient_scoop.processes.launcher.watchdog import (
    KILL_S,
    OPENING_S,
    REPORT_S,
    WELL_S,
    Picture,
    Watchdog,
)

PID = 4711


@dataclass
class Bench:
    """A process whose state the test sets."""

    state: str = "R"
    cpu: float = 1.0  # seconds of processor time that it takes per second
    sleepers: bool = True
    notes: list[str] = field(default_factory=list)
    cpu_s: float = 0.0

    def __post_init__(self) -> None:
        self.dog = Watchdog("broker", self.notes.append, self._look, kills_sleepers=self.sleepers)
        self.dog.heard()

    def _look(self, pid: int) -> Picture:
        assert pid == PID
        return Picture(self.state, self.cpu_s)

    def run(self, seconds: float, step_s: float = 0.5) -> bool:
        """Let time pass; return whether the process is to be killed."""
        for _ in range(round(seconds / step_s)):
            self.cpu_s += self.cpu * step_s
            if self.dog.tick(PID, step_s):
                return True
        return False


def test_a_process_that_reports_is_never_checked() -> None:
    bench = Bench("Z")
    for _ in range(1000):
        assert not bench.run(1)
        bench.dog.heard()
    assert bench.notes == []


def test_a_loop_is_reported_and_then_killed() -> None:
    bench = Bench()
    assert not bench.run(REPORT_S + 2)
    assert len(bench.notes) == 1
    assert str(PID) in bench.notes[0]
    assert bench.run(KILL_S)
    assert "is killed" in bench.notes[1]


def test_a_process_that_got_no_cpu_time_is_not_in_a_loop() -> None:
    bench = Bench(cpu=0.01)
    assert not bench.run(3 * KILL_S)


def test_a_process_that_sleeps_forever_is_killed_unless_it_is_an_agent() -> None:
    assert Bench("S", cpu=0.0).run(KILL_S + 3)
    agent = Bench("S", cpu=0.0, sleepers=False)
    assert not agent.run(3 * KILL_S)
    assert "kill -9 4711" in agent.notes[0]
    assert Bench(sleepers=False).run(KILL_S + 3), "but where it loops"


@pytest.mark.parametrize(("state", "word"), [("T", "kill -CONT 4711"), ("D", "disk")])
def test_a_stopped_or_disk_waiting_process_is_reported_once_and_never_killed(
    state: str, word: str
) -> None:
    bench = Bench(state, cpu=0.0)
    assert not bench.run(20 * KILL_S)
    (note,) = bench.notes
    assert word in note
    bench.dog.heard()
    assert bench.notes[1] == "the broker reports again"


def test_time_in_which_the_process_was_stopped_does_not_count() -> None:
    bench = Bench()
    bench.run(KILL_S - 5)
    bench.state, bench.cpu = "T", 0.0
    bench.run(KILL_S)
    bench.state, bench.cpu = "R", 1.0
    assert not bench.run(KILL_S - REPORT_S - 5), "it has not had its time since"
    assert bench.run(10)


def test_time_in_which_the_launcher_did_not_run_does_not_count() -> None:
    bench = Bench()
    bench.run(REPORT_S - 1)
    for _ in range(5):  # a laptop that sleeps, wakes, and sleeps again immediately
        assert not bench.dog.tick(PID, 3600.0)
    assert bench.dog.silent_s < KILL_S


def test_a_broker_that_opens_a_long_journal_is_not_killed() -> None:
    bench = Bench()
    bench.dog.started()
    assert not bench.run(20 * OPENING_S)
    (note,) = bench.notes
    assert "after starting" in note


def test_only_kills_within_a_short_time_are_counted_together() -> None:
    bench = Bench()
    for kills in (1, 2):
        bench.dog.started()
        bench.dog.heard()
        assert bench.run(KILL_S + 3)
        assert bench.dog.kills == kills
    bench.dog.started()
    for _ in range(round(WELL_S) + 2):
        bench.dog.heard()
        bench.run(1)
    assert bench.dog.kills == 0
