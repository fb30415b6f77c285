"""Time limits as users type them, and as batch systems report them."""

from __future__ import annotations

import click
import pytest

from resilient_scoop.cli.timelimit import TimeLimit, TimeLimitParam, batch_left_s, limit_of
from resilient_scoop.processes.options import Limit


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("23h50m", 85800), ("1d2h", 93600), ("01:30:00", 5400), ("1-02:00:00", 93600)],
)
def test_a_time_limit_is_accepted_in_the_notations_of_people_and_batch_systems(
    text: str, seconds: float
) -> None:
    assert TimeLimitParam().convert(text, None, None).seconds == seconds


def test_none_turns_the_time_limit_off() -> None:
    assert TimeLimitParam().convert("none", None, None).seconds is None


@pytest.mark.parametrize("text", ["10", "10:30", "soon", "", "0s", "-5m", "1-2h"])
def test_an_ambiguous_time_limit_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter, match="is not a time limit; write 90s"):
        TimeLimitParam().convert(text, None, None)


@pytest.mark.parametrize("name", ["SLURM_JOB_END_TIME", "PBS_WALLTIME"])
@pytest.mark.parametrize("text", ["garbage", "\xb2", "9" * 5000, "-5", "1.5", "1e3", "10:30"])
def test_an_unreadable_time_limit_of_a_batch_system_is_reported_and_ignored(
    name: str, text: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("SLURM_JOB_END_TIME", raising=False)
    monkeypatch.setenv(name, text)
    assert limit_of(None) is None
    assert f"{name}={text[:10]!r}"[:-1] in capsys.readouterr().err
    assert limit_of(TimeLimit(5.0)) == Limit(5.0)
    assert limit_of(TimeLimit(None)) is None


def test_a_time_limit_in_the_past_is_reported_and_ignored(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SLURM_JOB_END_TIME", "1000")
    assert limit_of(None) is None
    assert "is in the past: no time limit" in capsys.readouterr().err


def test_pbs_may_give_the_length_in_hours() -> None:
    limit = batch_left_s({"PBS_WALLTIME": "01:00:00", "PBS_JOBID": "1.none"}, 1000.0)
    assert limit is not None
    assert 0 < 3600 - limit[1] < 3600


def test_slurm_reports_the_end_of_a_job_and_pbs_its_length() -> None:
    assert batch_left_s({}, 1000.0) is None
    assert batch_left_s({"SLURM_JOB_END_TIME": "oops"}, 1000.0) is None
    assert batch_left_s({"SLURM_JOB_END_TIME": "1600"}, 1000.0) == ("SLURM_JOB_END_TIME", 600.0)
    limit = batch_left_s({"PBS_WALLTIME": "3600", "PBS_JOBID": "1.none"}, 1000.0)
    assert limit is not None
    assert limit[0] == "PBS_WALLTIME"
    assert 0 < 3600 - limit[1] < 3600, "the job is as old as this process"
