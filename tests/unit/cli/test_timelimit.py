"""Time limits as they are typed, and as batch systems tell them; signals by their strength."""

from __future__ import annotations

import signal
from pathlib import Path

import click
import pytest

from resilient_scoop.cli.timelimit import TimeLimit, TimeLimitParam, batch_left_s, limit_of
from resilient_scoop.processes.launcher.stopping import (
    GO_ON_SIGNAL,
    Handover,
    Level,
    read_told,
)
from resilient_scoop.processes.options import Limit
from resilient_scoop.runs.folder import RunDir
from resilient_scoop.runs.reports import Report


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("23h50m", 85800), ("1d2h", 93600), ("01:30:00", 5400), ("1-02:00:00", 93600)],
)
def test_a_limit_is_typed_as_people_and_batch_systems_write_it(text: str, seconds: float) -> None:
    assert TimeLimitParam().convert(text, None, None).seconds == seconds


def test_none_turns_it_off() -> None:
    assert TimeLimitParam().convert("none", None, None).seconds is None


@pytest.mark.parametrize("text", ["10", "10:30", "soon", "", "0s", "-5m", "1-2h"])
def test_what_could_be_read_in_two_ways_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter, match="is not a time limit; write 90s"):
        TimeLimitParam().convert(text, None, None)


@pytest.mark.parametrize("name", ["SLURM_JOB_END_TIME", "PBS_WALLTIME"])
@pytest.mark.parametrize("text", ["garbage", "\xb2", "9" * 5000, "-5", "1.5", "1e3", "10:30"])
def test_what_a_batch_system_tells_and_nobody_can_read_is_said_and_is_no_limit(
    name: str, text: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("SLURM_JOB_END_TIME", raising=False)
    monkeypatch.setenv(name, text)
    assert limit_of(None) is None
    assert f"{name}={text[:10]!r}"[:-1] in capsys.readouterr().err
    assert limit_of(TimeLimit(5.0)) == Limit(5.0)
    assert limit_of(TimeLimit(None)) is None


def test_a_moment_that_is_past_is_said_and_is_no_limit(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SLURM_JOB_END_TIME", "1000")
    assert limit_of(None) is None
    assert "is in the past: no time limit" in capsys.readouterr().err


def test_pbs_may_write_hours() -> None:
    told = batch_left_s({"PBS_WALLTIME": "01:00:00", "PBS_JOBID": "1.none"}, 1000.0)
    assert told is not None
    assert 0 < 3600 - told[1] < 3600


def test_slurm_tells_the_end_and_pbs_the_length() -> None:
    assert batch_left_s({}, 1000.0) is None
    assert batch_left_s({"SLURM_JOB_END_TIME": "oops"}, 1000.0) is None
    assert batch_left_s({"SLURM_JOB_END_TIME": "1600"}, 1000.0) == ("SLURM_JOB_END_TIME", 600.0)
    told = batch_left_s({"PBS_WALLTIME": "3600", "PBS_JOBID": "1.none"}, 1000.0)
    assert told is not None
    assert told[0] == "PBS_WALLTIME"
    assert 0 < 3600 - told[1] < 3600, "the job is as old as this process"


class Asking:
    """The launcher's side, without a launcher."""

    def __init__(self, folder: Path, limit: Limit | None = None) -> None:
        self.said: list[str] = []
        self.told: list[str] = []
        self.run = RunDir(folder)
        self.handover = Handover(self.run, self.said.append, self.told.append, limit)

    def words(self) -> list[str]:
        return [line.split()[0] + " " + (line.split()[2:3] or [""])[0] for line in self.told]


def test_what_is_milder_than_what_is_under_way_changes_nothing(tmp_path: Path) -> None:
    asking = Asking(tmp_path)
    asking.handover.hear([GO_ON_SIGNAL, GO_ON_SIGNAL])
    assert not asking.handover.ends
    asking.handover.hear([signal.SIGUSR1, signal.SIGUSR1, GO_ON_SIGNAL])
    asking.handover.hear([signal.SIGTERM, signal.SIGUSR1])
    assert asking.words() == ["checkpoint go-on", "checkpoint hand-over", "checkpoint hand-over"]
    assert asking.handover.code == 143
    assert not asking.handover.is_late(0.0)


@pytest.mark.parametrize("first", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_second_signal_kills(tmp_path: Path, first: int, second: int) -> None:
    asking = Asking(tmp_path)
    asking.handover.hear([first])
    assert asking.handover.due_s(0.0) > 10
    code = asking.handover.code
    asking.handover.hear([second])
    assert asking.handover.is_late(1e12)
    assert asking.handover.kill_at is not None
    assert asking.handover.due_s(asking.handover.kill_at) == 0.0
    assert asking.handover.code == code


def test_ctrl_c_stops_a_hand_over_in_order(tmp_path: Path) -> None:
    asking = Asking(tmp_path)
    asking.handover.hear([signal.SIGUSR1, signal.SIGINT])
    assert asking.told[-1] == "stop ctrl-c"
    assert (asking.handover.level, asking.handover.code) == (Level.STOP, 130)


def test_a_time_limit_asks_once_and_a_new_broker_is_asked_again(tmp_path: Path) -> None:
    asking = Asking(tmp_path, Limit(5.0, 20.0))
    at = asking.handover.limit_at
    asking.handover.look_at_clock(at - 1)
    assert asking.told == []
    asking.handover.look_at_clock(at)
    asking.handover.look_at_clock(at + 1)
    asking.handover.again()
    assert asking.words() == ["checkpoint hand-over"] * 2
    assert float(asking.told[1].split()[3]) <= 20.0


def test_others_can_see_how_far_it_is(tmp_path: Path) -> None:
    asking = Asking(tmp_path)
    assert read_told(asking.run).over
    asking.handover.hear([GO_ON_SIGNAL])
    assert not read_told(asking.run).over
    asking.handover.hear_report(Report(ask=0, asked_over=True, whole=True))
    assert not read_told(asking.run).over, "the report is of an earlier ask"
    asking.handover.hear_report(Report(ask=1, all_named=True, named=2, saved=1, left=1))
    asking.handover.hear_report(
        Report(ask=1, all_named=True, asked_over=True, named=2, saved=2, whole=True)
    )
    told = read_told(asking.run)
    assert (told.over, told.whole, told.saved) == (True, True, 2)
    assert asking.said[-1] == "2 parents saved; the run continues"
    asking.handover.hear([GO_ON_SIGNAL])
    assert read_told(asking.run).ask == 2
    assert not asking.handover.whole, "the run was not handed over"
