"""The launcher passes reports of the broker on to the places."""

from __future__ import annotations

import selectors
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from resilient_scoop.processes.launcher import places
from resilient_scoop.processes.launcher.places import PlacesPart
from resilient_scoop.processes.places.reports import HostAgentOver, PlacesReport
from resilient_scoop.runs.folder import RunDir
from resilient_scoop.runs.hosts import OUT_FILE, HostReport


@pytest.fixture
def commands_sent(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    sent: list[dict[str, Any]] = []
    monkeypatch.setattr(PlacesPart, "_tell", lambda _self, **command: sent.append(command))
    return sent


def part(
    run: Path,
    said: list[str] | None = None,
    workers_here: int = 0,
    told: list[str] | None = None,
) -> PlacesPart:
    def settings() -> Any:
        raise AssertionError("nothing is started")

    note = (lambda _text: None) if said is None else said.append
    return PlacesPart(
        RunDir(run),
        selectors.DefaultSelector(),
        note,
        settings,
        (lambda _line: None) if told is None else told.append,
        workers_here=workers_here,
    )


def agent(what: str) -> dict[str, Any]:
    return {"agent": "a", "is": what}


def host(what: str) -> dict[str, Any]:
    return {"host": "a", "is": what}


@pytest.mark.parametrize(
    ("states", "commands"),
    [
        (["unknown", "up", "up"], [agent("came")]),
        (["up", "lost", "quarantined", "lost"], [agent("came"), agent("lost")]),
        (["up", "unknown"], [agent("came"), agent("left")]),
        (["up", "draining", "drained"], [agent("came"), agent("left"), host("drained")]),
        (["up", "revoked"], [agent("came"), agent("lost"), host("revoked")]),
        (["drained"], [host("drained")]),
    ],
)
def test_changes_of_hosts_are_reported_once(
    tmp_path: Path, commands_sent: list[Any], states: list[str], commands: list[Any]
) -> None:
    known = part(tmp_path)
    for state in states:
        known.tell_hosts({"a": state})
    assert commands_sent == commands


@pytest.mark.parametrize(("died", "how"), [(True, "died"), (False, "left")])
def test_the_broker_is_told_that_an_agent_has_ended(tmp_path: Path, died: bool, how: str) -> None:  # noqa: FBT001
    told: list[str] = []
    known = part(tmp_path, told=told)
    known._take(PlacesReport(over=HostAgentOver("alice", "61ff", died)))
    assert told == [f"over alice 61ff {how}"]


@pytest.mark.parametrize(
    ("state", "workers_here", "fatal"), [("up", 0, 0), ("gone", 0, 70), (None, 0, 70), (None, 2, 0)]
)
def test_a_run_without_hosts_stops_when_the_places_have_failed_repeatedly(
    tmp_path: Path, state: str | None, workers_here: int, fatal: int
) -> None:
    notes: list[str] = []
    known = part(tmp_path, notes, workers_here)
    known._run.logs.mkdir(exist_ok=True)
    if state is not None:
        known._states["a"] = state
    for _ in range(places.DEATHS_MAX + 1):
        process = subprocess.Popen(["/bin/false"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert process.stdout is not None
        known._selector.register(process.stdout, selectors.EVENT_READ)
        known._ended(process)
    assert known.fatal == fatal
    assert ("the run stops: it has no host" in notes[-1]) == bool(fatal)
    known._selector.close()


def test_a_host_that_does_not_reach_a_new_broker_is_lost_after_some_time(
    tmp_path: Path, commands_sent: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    known = part(tmp_path)
    known.tell_hosts({"a": "up"})
    known.tell_hosts({})
    assert commands_sent == [agent("came")]

    later = time.monotonic() + places.LOST_S
    monkeypatch.setattr(time, "monotonic", lambda: later)
    known.tell_hosts({})
    known.tell_hosts({})
    assert commands_sent == [agent("came"), agent("lost")]


def test_a_host_that_reaches_a_new_broker_in_time_is_not_lost(
    tmp_path: Path, commands_sent: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    known = part(tmp_path)
    known.tell_hosts({"a": "up"})
    known.tell_hosts({})
    known.tell_hosts({"a": "up"})
    later = time.monotonic() + 10 * places.LOST_S
    monkeypatch.setattr(time, "monotonic", lambda: later)
    known.tell_hosts({})
    assert commands_sent == [agent("came")]


def test_hosts_that_were_taken_out_are_known_from_the_start(
    tmp_path: Path, commands_sent: list[Any]
) -> None:
    (tmp_path / OUT_FILE).write_text('{"a": "drained", "b": "revoked"}')
    known = part(tmp_path)
    assert known._states == {"a": "drained", "b": "revoked"}
    known.tell_hosts({"a": "drained"})
    assert commands_sent == []


def report(*names: str) -> list[HostReport]:
    return [HostReport(name=name, state="running") for name in names]


def test_a_run_without_any_host_left_reports_it_once(
    tmp_path: Path, commands_sent: list[Any]
) -> None:
    said: list[str] = []
    known = part(tmp_path, said)
    known.hosts = report("a", "b")
    known.tell_hosts({"a": "drained", "b": "draining"})
    assert not said
    for _ in range(2):
        known.tell_hosts({"a": "drained", "b": "revoked"})
    assert len(said) == 1
    assert "a was drained, b was revoked" in said[0]
    assert "rscoop invite" in said[0]

    # A host that is invited and leaves again
    known.tell_hosts({"a": "drained", "b": "revoked", "c": "up"})
    assert len(said) == 1
    known.tell_hosts({"a": "drained", "b": "revoked", "c": "unknown"})
    assert len(said) == 2
    assert "c has left" in said[1]


@pytest.mark.parametrize("state", ["lost", "quarantined", "unknown", "up"])
def test_a_run_with_a_host_that_may_arrive_reports_nothing(
    tmp_path: Path, commands_sent: list[Any], state: str
) -> None:
    said: list[str] = []
    known = part(tmp_path, said)
    known.hosts = report("a", "b")
    known.tell_hosts({"a": "drained", "b": state})
    assert not said


def test_a_run_that_computes_here_needs_no_host(tmp_path: Path, commands_sent: list[Any]) -> None:
    said: list[str] = []
    known = part(tmp_path, said, workers_here=1)
    known.hosts = report("a")
    known.tell_hosts({"a": "drained"})
    assert not said
