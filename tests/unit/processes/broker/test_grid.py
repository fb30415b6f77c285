"""The broker's code for other hosts, without sockets."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from resilient_scoop.core.broker.hosts import HostStatus
from resilient_scoop.processes.broker.grid import Grid, expected
from resilient_scoop.runs.hosts import LiveHost, LiveHostsFile, read_live_hosts


def test_a_restarted_broker_expects_the_hosts_of_the_last_one() -> None:
    states = {"alice": "up", "bob": "lost", "carol": "draining", "dave": "revoked"}
    live = LiveHostsFile(0.0, {name: LiveHost(state=state) for name, state in states.items()})

    assert expected(live) == ["alice", "carol"]
    assert expected(None) == []


def status(name: str) -> HostStatus:
    return HostStatus(name, "up", "", 1, 0, 0, 0.0, 0.0, 10.0, 0.0, 0, 0.0)


def test_a_host_that_has_arrived_is_recorded_in_the_same_turn(tmp_path: Path) -> None:
    """The broker may die at any moment, and the next broker must wait for that host."""
    there: list[str] = []
    hosts = SimpleNamespace(arrivals=0, statuses=lambda _now: [status(each) for each in there])
    exchange: Any = SimpleNamespace(cuts=[], broker=SimpleNamespace(hosts=hosts))
    grid = Grid.__new__(Grid)
    grid._run_dir, grid._written_at, grid._pruned_at, grid._arrivals = tmp_path, 100.0, 100.0, 0
    grid._exchange = exchange

    grid.after_turn(100.1)
    assert expected(read_live_hosts(tmp_path)) == []
    there.append("alice")
    hosts.arrivals += 1
    grid.after_turn(100.2)

    assert expected(read_live_hosts(tmp_path)) == ["alice"]
