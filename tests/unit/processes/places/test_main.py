"""The shell of the places: commands in, reports out, calls in threads, tags on disk."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from resilient_scoop.core import places as core
from resilient_scoop.errors import PlaceBusyError, PlaceRefusedError
from resilient_scoop.hosts.base import UnitState
from resilient_scoop.hosts.conversation import EndedAgent
from resilient_scoop.processes.places import calls
from resilient_scoop.processes.places.reports import HostAgentOver
from resilient_scoop.processes.places.units_file import UnitsFile
from resilient_scoop.runs.hosts import read_hosts
from tests.unit.processes.places.fake_place import FakePlace, Launcher


@pytest.fixture
def alice(tmp_path: Path) -> Iterator[Launcher]:
    launcher = Launcher(tmp_path / "run", "alice")
    launcher.begin()
    yield launcher
    if launcher.commands >= 0:
        launcher.end()


def place(launcher: Launcher) -> FakePlace:
    return launcher.places["alice"]


def test_an_agent_is_started_with_its_ticket_and_runs_when_it_is_connected(alice: Launcher) -> None:
    alice.wait(lambda: alice.states() == {"alice": "starting"})
    alice.say(**{"agent": "alice", "is": "came"})
    alice.wait(lambda: alice.states() == {"alice": "running"})

    assert place(alice).tickets == [b"ticket of alice"]
    assert place(alice).names().count("start") == 1


def test_the_tag_is_on_disk_before_the_place_is_called(alice: Launcher, tmp_path: Path) -> None:
    place(alice).block()
    alice.wait(lambda: "start" in place(alice).names())

    tag = place(alice).calls[0][2]
    assert tag in (tmp_path / "run" / "units").read_text()
    place(alice).release()


def test_places_end_with_the_launcher_and_agents_continue(alice: Launcher) -> None:
    alice.wait(lambda: alice.states() == {"alice": "starting"})

    assert alice.end() == 0
    assert len(place(alice).units) == 1
    assert place(alice).names()[-1] == "close"
    assert "stop" not in place(alice).names()


def test_an_ended_agent_is_reported_at_once(alice: Launcher) -> None:
    alice.wait(lambda: alice.states() == {"alice": "starting"})

    place(alice).says_over(EndedAgent("61ff", died=True))

    over = HostAgentOver("alice", "61ff", died=True)
    alice.wait(lambda: over in [report.over for report in alice.reports])


def test_the_next_places_find_the_agents_of_the_last_ones(alice: Launcher) -> None:
    # Given an agent that outlives its places
    alice.wait(lambda: alice.states() == {"alice": "starting"})
    alice.end()
    (tag,) = place(alice).units
    place(alice).calls.clear()

    # When the next places start
    alice.begin()
    alice.wait(lambda: "start" in place(alice).names())

    # Then they search its tag first, and start it under the same tag
    assert place(alice).calls[:2] == [("find", tag), ("start", 1, tag)]


def test_a_stop_stops_the_agents_and_ends_the_process(alice: Launcher, tmp_path: Path) -> None:
    alice.wait(lambda: alice.states() == {"alice": "starting"})

    alice.say(stop=2.0)
    alice.thread.join(5.0)

    assert not place(alice).units
    assert alice.end() == 0
    units = UnitsFile(tmp_path / "run")
    assert units.found == ()
    units.close()


def test_a_stop_does_not_wait_longer_than_its_time_for_a_place_that_hangs(
    alice: Launcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(core, "STOP_LAST_S", 0.1)
    alice.wait(lambda: alice.states() == {"alice": "starting"})
    place(alice).block()

    alice.say(stop=0.2)
    alice.thread.join(3.0)

    assert not alice.thread.is_alive()
    place(alice).release()
    alice.end()
    assert any("not known whether the agents of alice" in note for note in alice.notes())


def test_a_stop_does_not_wait_for_logins(tmp_path: Path) -> None:
    launcher = Launcher(tmp_path / "run", "alice", "bob")
    bob = launcher.places["bob"]
    bob.unreachable = threading.Event()
    launcher.begin()
    launcher.wait(lambda: launcher.states() == {"alice": "starting", "bob": "starting"})

    launcher.say(stop=5.0)
    launcher.thread.join(3.0)

    assert not launcher.thread.is_alive()
    bob.unreachable.set()
    launcher.end()
    assert launcher.notes() == []
    assert not launcher.places["alice"].units
    assert "start" not in bob.names()


def test_hosts_that_do_not_answer_delay_no_checks_of_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls, "THREADS_MAX", 2)
    launcher = Launcher(tmp_path / "run", "alice", *"bcde")
    blocked = threading.Event()
    for name in "bcde":
        launcher.places[name].unreachable = blocked
    launcher.begin()
    launcher.wait(lambda: "look" in launcher.places["alice"].names())
    blocked.set()
    launcher.end()


def test_a_refusal_is_reported_once_with_its_reason(tmp_path: Path) -> None:
    launcher = Launcher(tmp_path / "run", "alice", "bob")
    launcher.places["bob"].error = PlaceRefusedError("the key of bob has changed")
    launcher.begin()
    launcher.wait(lambda: launcher.states() == {"alice": "starting", "bob": "never came"})
    launcher.end()

    (note,) = launcher.notes()
    assert "the key of bob has changed" in note
    assert launcher.reports[-1].hosts is None or launcher.states()["bob"] == "never came"


def test_a_busy_place_is_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(core, "FIND_S", 0.1)
    monkeypatch.setattr(core, "BACKOFF_S", (0.0, 0.1))
    launcher = Launcher(tmp_path / "run", "alice")
    launcher.places["alice"].error = PlaceBusyError("too many logins", 0.1)
    launcher.begin()
    launcher.wait(lambda: launcher.states() == {"alice": "unknown"})

    launcher.places["alice"].error = None
    launcher.wait(lambda: launcher.states() == {"alice": "starting"})
    launcher.end()


def test_an_agent_that_ended_is_reported_with_its_last_lines_and_started_again(
    alice: Launcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(core, "BACKOFF_S", (0.0, 0.1))
    place(alice).why, place(alice).log = "it was killed", "out of luck"
    alice.wait(lambda: alice.states() == {"alice": "starting"})
    alice.say(**{"agent": "alice", "is": "came"})
    alice.wait(lambda: alice.states() == {"alice": "running"})

    place(alice).units.clear()
    alice.say(**{"agent": "alice", "is": "lost"})
    alice.wait(lambda: place(alice).names().count("start") == 2)

    (note,) = alice.notes()
    assert "it was killed" in note
    assert "out of luck" in note


def test_a_drained_host_is_not_started_again(
    alice: Launcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(core, "BACKOFF_S", (0.0, 0.0))
    alice.wait(lambda: alice.states() == {"alice": "starting"})
    alice.say(**{"agent": "alice", "is": "came"})
    alice.say(**{"host": "alice", "is": "drained"})
    alice.wait(lambda: alice.states() == {"alice": "drained"})

    place(alice).units.clear()
    alice.say(**{"agent": "alice", "is": "left"})
    alice.say(**{"agent": "nobody", "is": "came"})
    alice.wait(lambda: place(alice).names()[-1] == "look")

    assert alice.end() == 0
    assert place(alice).names().count("start") == 1
    assert "stop" not in place(alice).names()


def test_a_host_that_was_taken_out_before_the_start_is_not_started(tmp_path: Path) -> None:
    launcher = Launcher(tmp_path / "run", "alice", "bob", "carol")
    launcher.begin(
        b'{"host": "bob", "is": "drained"}\n{"host": "carol", "is": "revoked"}\n',
        b'{"agent": "alice", "is": "came"}\n',
    )
    launcher.wait(lambda: launcher.states().get("alice") == "running")
    launcher.end()

    assert launcher.states() == {"alice": "running", "bob": "drained", "carol": "revoked"}
    assert "start" not in launcher.places["bob"].names() + launcher.places["carol"].names()


def test_too_few_hosts_end_the_run(tmp_path: Path) -> None:
    launcher = Launcher(tmp_path / "run", "alice", min_hosts=1, min_hosts_s=0.2)
    launcher.places["alice"].state = UnitState.STARTING
    launcher.begin()
    launcher.wait(lambda: any(report.fatal for report in launcher.reports))
    launcher.end()

    (report,) = [report for report in launcher.reports if report.fatal]
    assert report.fatal == 75
    assert "0 of at least 1 host" in report.note


def test_hosts_json_contains_the_reported_states(alice: Launcher, tmp_path: Path) -> None:
    place(alice).why = "alice: a queue"  # shown beside the name, so the text has no name
    place(alice).state = UnitState.WAITING
    alice.wait(lambda: alice.states() == {"alice": "waiting"})
    alice.end()

    file = read_hosts(tmp_path / "run")
    assert file is not None
    assert [(host.name, host.state, host.why) for host in file.hosts] == [
        ("alice", "waiting", "a queue")
    ]
