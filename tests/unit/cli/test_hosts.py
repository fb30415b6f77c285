"""`rscoop hosts`: the reports of places and broker about hosts, in one table."""

from __future__ import annotations

import json
import time
from pathlib import Path

import msgspec
import pytest

from resilient_scoop.cli import hosts as command
from resilient_scoop.cli import tables
from resilient_scoop.runs.folder import RunDir
from resilient_scoop.runs.hosts import (
    LIVE_FILE,
    HostReport,
    HostsFile,
    LiveHost,
    LiveHostsFile,
    host_rows,
    write_hosts,
)
from tests.unit.cli_runs import new, rscoop

REASON = "the key of bob has changed: this may be an attack; compare it, then ssh-keygen -R bob"
HOSTS = [
    HostReport(name="alice", state="running", workers=8),
    HostReport(name="bob", state="never came", why=f"bob: {REASON}", again_s=400.0),
    HostReport(
        name="carol", state="gone", why="it was killed", log="a\nlast words", quarantine_s=90.0
    ),
    HostReport(name="dave", state="drained"),
]
LIVE = {
    "alice": LiveHost(
        workers=7, busy=5, done=12, lost_items=3, rtt_ms=1.25, heard_s=0.1, state="up"
    ),
    "eve": LiveHost(workers=1, heard_s=70.0, state="lost"),
}


def with_hosts(run: RunDir, ago_s: float = 0.0) -> RunDir:
    now = time.time()  # noqa: TID251  the command counts from it
    write_hosts(run.path, HostsFile(now - ago_s, HOSTS))
    live = msgspec.json.encode(LiveHostsFile(now - ago_s, LIVE))
    (run.path / LIVE_FILE).write_bytes(live)
    return run


def test_hosts_are_listed_with_states_figures_and_reasons(tmp_path: Path) -> None:
    run = with_hosts(new(tmp_path))
    with run.hold():
        lines = rscoop(tmp_path, "hosts").stdout.splitlines()

    assert lines[0].split() == [
        "HOST",
        "STATE",
        "WORKERS",
        "BUSY",
        "DONE",
        "LOST",
        "RTT",
        "SEEN",
        "LIMIT",
    ]
    table = {line.split()[0]: line.split() for line in lines[1:6]}
    assert table["alice"] == ["alice", "up", "7", "5", "12", "3", "1.2ms", "0s", "-"]
    assert table["eve"] == ["eve", "lost", "1", "0", "0", "0", "-", "1m10s", "-"]
    assert table["dave"][:3] == ["dave", "drained", "-"]
    assert lines[6] == f"bob: {REASON}; tried again in 6m40s"
    assert lines[7].startswith("carol: it was killed; it was lost repeatedly and is in quarantine")
    assert lines[8:] == ["    a", "    last words"]


def test_durations_include_the_time_since_the_files_were_written() -> None:
    rows = host_rows(HostsFile(1000.0, HOSTS), LiveHostsFile(1040.0, LIVE), 1060.0)
    by_name = {row.name: row for row in rows}
    assert by_name["bob"].again_s == 340.0
    assert by_name["carol"].quarantine_s == 30.0
    assert by_name["alice"].heard_s == 20.1
    assert host_rows(HostsFile(1000.0, HOSTS), None, 2000.0)[2].quarantine_s == 0.0


def test_invited_hosts_follow_the_others() -> None:
    rows = host_rows(None, LiveHostsFile(0.0, LIVE), 0.0)
    assert [(row.name, row.state) for row in rows] == [("alice", "up"), ("eve", "lost")]


@pytest.mark.parametrize("state", ["up", "draining", "quarantined", "revoked"])
def test_the_broker_s_state_of_an_agent_that_it_knows_is_shown(state: str) -> None:
    live = {"alice": LiveHost(state=state)}
    for report in (HOSTS[0], HostReport(name="alice", state="drained")):
        (row,) = host_rows(HostsFile(0.0, [report]), LiveHostsFile(0.0, live), 0.0)
        assert row.state == state


def test_the_state_of_the_place_is_shown_for_a_host_without_a_connected_agent() -> None:
    live = {"bob": LiveHost(workers=4, state="lost")}
    (row,) = host_rows(HostsFile(0.0, [HOSTS[1]]), LiveHostsFile(0.0, live), 0.0)
    assert row.state == "never came"


def test_hosts_are_printed_as_json(tmp_path: Path) -> None:
    run = with_hosts(new(tmp_path))
    report = json.loads(rscoop(tmp_path, "hosts", "--json").stdout)
    assert (report["id"], report["live"]) == (run.id, False)
    alice = report["hosts"][0]
    assert (alice["name"], alice["state"], alice["workers"], alice["busy"]) == (
        "alice", "up", 7, 5,
    )  # fmt: skip


def test_an_ended_run_shows_its_hosts_as_last_seen(tmp_path: Path) -> None:
    with_hosts(new(tmp_path))
    done = rscoop(tmp_path, "hosts")
    assert "is not running" in done.stderr
    assert "tried again" not in done.stdout


def test_a_run_without_hosts_says_so(tmp_path: Path) -> None:
    new(tmp_path)
    done = rscoop(tmp_path, "hosts")
    assert "uses no other host" in done.stderr
    assert json.loads(rscoop(tmp_path, "hosts", "--json").stdout)["hosts"] == []


@pytest.mark.parametrize("width", [40, 80])
def test_the_table_and_the_reasons_fit_the_terminal(
    tmp_path: Path, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = with_hosts(new(tmp_path))
    monkeypatch.setattr(tables, "width_here", lambda: width)
    monkeypatch.setattr(command, "width_here", lambda: width)
    with run.hold():
        lines = rscoop(tmp_path, "hosts").stdout.splitlines()
    assert max(len(line) for line in lines) <= width
    assert lines[0].split()[:2] == ["HOST", "STATE"]
    assert "ssh-keygen" in " ".join(lines)


def test_a_damaged_file_counts_as_missing(tmp_path: Path) -> None:
    run = new(tmp_path)
    (run.path / LIVE_FILE).write_bytes(b"{")
    assert "uses no other host" in rscoop(tmp_path, "hosts").stderr
