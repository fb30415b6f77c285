"""What the launcher tells the places of what the broker sees."""

from __future__ import annotations

import selectors
import time
from pathlib import Path
from typing import Any

import pytest

from resilient_scoop.processes.launcher import places
from resilient_scoop.processes.launcher.places import PlacesPart
from resilient_scoop.runs.folder import RunDir
from resilient_scoop.runs.hosts import OUT_FILE


@pytest.fixture
def commands_sent(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    sent: list[dict[str, Any]] = []
    monkeypatch.setattr(PlacesPart, "_tell", lambda _self, **command: sent.append(command))
    return sent


def part(run: Path) -> PlacesPart:
    def settings() -> Any:
        raise AssertionError("nothing is started")

    return PlacesPart(RunDir(run), selectors.DefaultSelector(), lambda _text: None, settings)


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
def test_changes_are_told_once(
    tmp_path: Path, commands_sent: list[Any], states: list[str], commands: list[Any]
) -> None:
    known = part(tmp_path)
    for state in states:
        known.tell_hosts({"a": state})
    assert commands_sent == commands


def test_a_host_that_a_new_broker_does_not_hear_of_is_lost_after_a_while(
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


def test_a_host_that_a_new_broker_hears_of_in_time_is_not_lost(
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


def test_hosts_that_are_out_are_known_from_the_start(
    tmp_path: Path, commands_sent: list[Any]
) -> None:
    (tmp_path / OUT_FILE).write_text('{"a": "drained", "b": "revoked"}')
    known = part(tmp_path)
    assert known._states == {"a": "drained", "b": "revoked"}
    known.tell_hosts({"a": "drained"})
    assert commands_sent == []
