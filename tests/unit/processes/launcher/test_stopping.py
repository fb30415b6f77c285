"""How a run is ended before its script ends: requests of different strength."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from resilient_scoop.processes.launcher import stopping
from resilient_scoop.processes.launcher.stopping import (
    GO_ON_SIGNAL,
    StopLevel,
    Stopping,
    StopRequest,
    read_report,
)
from resilient_scoop.processes.options import Limit
from resilient_scoop.runs.folder import RunDir
from resilient_scoop.runs.reports import Report


class Asking:
    """The launcher's side, without a launcher."""

    def __init__(self, folder: Path, limit: Limit | None = None) -> None:
        self.notes: list[str] = []
        self.sent: list[str] = []
        self.run = RunDir(folder)
        self.handover = Stopping(self.run, self.notes.append, self.sent.append, limit)

    def words(self) -> list[str]:
        return [line.split()[0] + " " + (line.split()[2:3] or [""])[0] for line in self.sent]


def test_a_milder_request_changes_nothing(tmp_path: Path) -> None:
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


def test_ctrl_c_during_a_hand_over_stops_the_run_normally(tmp_path: Path) -> None:
    asking = Asking(tmp_path)
    asking.handover.hear([signal.SIGUSR1, signal.SIGINT])
    assert asking.sent[-1] == "stop ctrl-c"
    assert (asking.handover.level, asking.handover.code) == (StopLevel.STOP, 130)


def test_a_time_limit_requests_checkpoints_once_and_repeats_it_to_a_new_broker(
    tmp_path: Path,
) -> None:
    asking = Asking(tmp_path, Limit(5.0, 20.0))
    at = asking.handover.limit_at
    asking.handover.look_at_clock(at - 1)
    assert asking.sent == []
    asking.handover.look_at_clock(at)
    asking.handover.look_at_clock(at + 1)
    asking.handover.again()
    assert asking.words() == ["checkpoint hand-over"] * 2
    assert float(asking.sent[1].split()[3]) <= 20.0


def test_other_processes_can_read_the_level_of_a_stop(tmp_path: Path) -> None:
    asking = Asking(tmp_path)
    assert read_report(asking.run).over
    asking.handover.hear([GO_ON_SIGNAL])
    assert not read_report(asking.run).over
    asking.handover.hear_report(Report(ask=0, asked_over=True, whole=True))
    assert not read_report(asking.run).over, "the report is of an earlier ask"
    asking.handover.hear_report(Report(ask=1, all_named=True, named=2, saved=1, left=1))
    asking.handover.hear_report(
        Report(ask=1, all_named=True, asked_over=True, named=2, saved=2, whole=True)
    )
    report = read_report(asking.run)
    assert (report.over, report.whole, report.saved) == (True, True, 2)
    assert asking.notes[-1] == "2 parents saved; the run continues"
    asking.handover.hear([GO_ON_SIGNAL])
    assert read_report(asking.run).ask == 2
    assert not asking.handover.whole, "the run was not handed over"


@pytest.mark.parametrize("level", StopLevel)
@pytest.mark.parametrize("request_", StopRequest)
def test_no_request_at_any_level_leads_to_a_milder_level(
    level: StopLevel, request_: StopRequest
) -> None:
    after = stopping._NEXT[level][request_]

    if request_ is StopRequest.SAVED:
        assert after == (StopLevel.NONE if level is StopLevel.GO_ON else level)
        return
    assert after >= level, "a milder request changes nothing"
    assert (after is StopLevel.KILL) == (
        level is StopLevel.KILL
        or (level >= StopLevel.HURRY and request_ in (StopRequest.TERMINATE, StopRequest.INTERRUPT))
    )
    alone = stopping._NEXT[StopLevel.NONE][request_]
    assert after is StopLevel.KILL or after == max(level, alone)


@pytest.mark.parametrize("level", StopLevel)
@pytest.mark.parametrize("number", stopping.HEARD)
def test_every_signal_at_every_level_is_handled_as_the_table_says(
    tmp_path: Path, level: StopLevel, number: int
) -> None:
    asking = Asking(tmp_path)
    asking.handover.level = level
    request = {
        signal.SIGTERM: StopRequest.TERMINATE, signal.SIGINT: StopRequest.INTERRUPT,
        signal.SIGHUP: StopRequest.INTERRUPT, GO_ON_SIGNAL: StopRequest.GO_ON,
    }.get(number, StopRequest.HAND_OVER)  # fmt: skip

    asking.handover.hear([number])

    after = stopping._NEXT[level][request]
    assert asking.handover.level is after
    words = [line.split()[0] for line in asking.sent]
    asked = after in (StopLevel.GO_ON, StopLevel.HAND_OVER, StopLevel.HURRY)
    changed = after is not level
    assert words == (["checkpoint"] if asked and changed else []) + (
        ["stop"] if after is StopLevel.STOP and changed else []
    )
    again = level is StopLevel.KILL and number in stopping.CODES
    assert (asking.handover.kill_at is not None) == (
        again or (changed and after >= StopLevel.HAND_OVER)
    )
