"""`rscoop status` describes other hosts."""

from __future__ import annotations

from pathlib import Path

import pytest

from resilient_scoop.cli.status import _elsewhere, _host_line
from resilient_scoop.runs.hosts import (
    HostReport,
    HostRow,
    HostsFile,
    LiveHost,
    LiveHostsFile,
    host_rows,
    read_missing,
    write_hosts,
)


def row(live: LiveHost | None, started: HostReport | None) -> HostRow:
    places = None if started is None else HostsFile(100.0, [started])
    linked = None if live is None else LiveHostsFile(100.0, {"alice": live})
    (found,) = host_rows(places, linked, 102.0)
    return found


def test_a_host_that_computes_is_described_by_its_figures() -> None:
    live = LiveHost(
        workers=8, busy=7, done=100, lost_items=2, rtt_ms=0.44, heard_s=1.0, state="up", rate=12.34,
        slack_s=9.0, at_risk_s=75.0,
    )  # fmt: skip
    assert _host_line(row(live, HostReport(name="alice", state="running"))) == (
        "  host      alice: up, 8 workers, 7 busy, 12.3/s, 0.4 ms away, heard 3s ago, lost in 7s, "
        "2 items taken over, 1m15s of work at risk"
    )


def test_only_present_hosts_count_while_a_run_is_live() -> None:
    rows = [
        row(LiveHost(workers=2, state=state), HostReport(name="alice", state="running"))
        for state in ("up", "draining", "lost")
    ]
    assert _elsewhere(rows, is_live=True) == "4 on 2 of 3 other hosts"
    assert _elsewhere(rows[:2], is_live=True) == "4 on 2 other hosts"
    assert _elsewhere(rows, is_live=False) == "6 on 3 other hosts"


def test_an_absent_host_is_described_by_the_reason() -> None:
    started = HostReport(name="alice", state="waiting", why="alice: the login failed")
    assert _host_line(row(None, started)) == "  host      alice: waiting, alice: the login failed"


@pytest.mark.parametrize("why", ["", "the login failed"])
def test_hosts_with_a_reason_block_a_run(tmp_path: Path, why: str) -> None:
    assert read_missing(tmp_path) == []
    write_hosts(tmp_path, HostsFile(1.0, [HostReport(name="alice", state="waiting", why=why)]))
    assert [each.why for each in read_missing(tmp_path)] == [why] * bool(why)
