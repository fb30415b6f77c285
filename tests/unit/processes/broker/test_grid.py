"""The broker's part for other hosts, without sockets."""

from __future__ import annotations

from resilient_scoop.processes.broker.grid import expected
from resilient_scoop.runs.hosts import LiveHost, LiveHostsFile


def test_a_restarted_broker_expects_the_hosts_that_were_there() -> None:
    states = {"alice": "up", "bob": "lost", "carol": "draining", "dave": "revoked"}
    live = LiveHostsFile(0.0, {name: LiveHost(state=state) for name, state in states.items()})

    assert expected(live) == ["alice", "carol"]
    assert expected(None) == []
