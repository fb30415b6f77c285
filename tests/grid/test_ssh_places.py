"""Places over SSH to workstations that are cut off, fall asleep or lose power."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import pytest

from chaos.lab import DESK, Lab
from resilient_scoop.errors import PlaceBusyError
from resilient_scoop.hosts.base import Seen, Unit, UnitState
from resilient_scoop.hosts.hostfile import Host
from resilient_scoop.hosts.make import DoorKind, ReachablePlace, SshOptions, make_place
from resilient_scoop.hosts.remote_command import RemoteSettings
from resilient_scoop.hosts.ssh_login import DEAD_AFTER_S, KEEPALIVE_S, LoginSettings
from tests import stand_in_host
from tests.integration.runs import wait_until

pytestmark = pytest.mark.grid

T = TypeVar("T")
TICKET = b"{}"
DETECTED_S = DEAD_AFTER_S + KEEPALIVE_S + 5
"""After this time a silent host is known to be silent: a keepalive is sent, then not acknowledged."""
REACHED_S = 10.0
"""After this time a host that is there again can be reached."""


class Desk:
    """The places of a launcher on the desk."""

    def __init__(self, lab: Lab, folder: Path) -> None:
        self.lab = lab
        self.folder = folder
        self.places: list[ReachablePlace] = []

    def place(
        self, name: str = "alice", address: str = "", *, connect_s: float = 3.0
    ) -> ReachablePlace:
        python = stand_in_host.write_python(self.folder)
        options = SshOptions(
            kind=DoorKind.PARAMIKO,
            remote=RemoteSettings(python=str(python)),
            login=LoginSettings(connect_s=connect_s),
        )
        host = Host(name, address=address or self.lab.address(name))
        place = self.here(lambda: make_place(host, options, "run1"))
        self.places.append(place)
        return place

    def here(self, work: Callable[[], T]) -> T:
        """Call a function whose sockets are the desk's."""
        return self.lab.in_network(DESK, work)

    def find_again(self, place: ReachablePlace, tag: str) -> Sequence[Unit]:
        """Return the units of a tag on a host that is back.

        For up to three seconds, the desk's kernel may answer "no route to host", because its
        requests for the host's address (ARP) had no answer before.
        """
        found: list[Sequence[Unit]] = []
        failures: list[PlaceBusyError] = []

        def is_reached() -> bool:
            try:
                found.append(self.here(lambda: place.find(tag)))
            except PlaceBusyError as error:
                failures.append(error)
            return bool(found)

        wait_until(is_reached, REACHED_S, lambda: str(failures))
        return found[0]

    def run(self, place: ReachablePlace, tag: str) -> Unit:
        [unit] = self.here(lambda: place.start(1, TICKET, tag=tag))
        self.become(place, unit, UnitState.RUNNING, 10)
        return unit

    def become(self, place: ReachablePlace, unit: Unit, state: UnitState, within_s: float) -> Seen:
        def seen() -> Seen:
            return self.here(lambda: place.look([unit])[unit])

        wait_until(lambda: seen().state is state, within_s, lambda: str(seen()))
        return seen()

    def close(self) -> None:
        for place in self.places:
            self.here(place.close)


@pytest.fixture
def desk(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    monkeypatch.setenv("HOME", str(lab.home(DESK)))
    folder = lab.shared / "stand-in"
    desk = Desk(lab, folder)
    yield desk
    desk.close()
    for name in lab.hosts:
        if lab.is_on(name):
            lab.wake(name)
            lab.exec(name, ["sh", "-c", "kill -9 -1; true"])


def test_a_route_is_the_address_of_the_desk_over_both_versions_of_ip(lab: Lab, desk: Desk) -> None:
    for version in (4, 6):
        place = desk.place("alice", lab.address("alice", version))
        assert desk.here(place.route) == lab.address(DESK, version)


def test_a_host_that_is_cut_off_becomes_unknown_and_its_agent_is_adopted_later(
    lab: Lab, desk: Desk
) -> None:
    place = desk.place()
    unit = desk.run(place, "t1")
    lab.cut("alice")
    began = time.monotonic()
    seen = desk.become(place, unit, UnitState.UNKNOWN, DETECTED_S)
    assert "was lost" in seen.why
    assert time.monotonic() - began > 1
    with pytest.raises(PlaceBusyError, match="did not answer within 3 s"):
        desk.here(lambda: place.find("t1"))

    lab.heal("alice")
    assert desk.find_again(place, "t1") == [unit]
    assert desk.run(place, "t1") == unit
    assert len(stand_in_host.started(desk.folder, "t1")) == 1
    desk.here(lambda: place.stop([unit], grace_s=2))


def test_a_host_that_loses_power_becomes_unknown_and_has_no_agent_afterwards(
    lab: Lab, desk: Desk
) -> None:
    place = desk.place("bob")
    unit = desk.run(place, "t2")
    lab.power_off("bob")
    desk.become(place, unit, UnitState.UNKNOWN, DETECTED_S)
    lab.boot("bob")
    assert desk.find_again(place, "t2") == []


def test_a_start_on_a_sleeping_host_is_refused_temporarily_before_its_deadline(
    lab: Lab, desk: Desk
) -> None:
    place = desk.place("carol")
    desk.here(place.connect)
    lab.sleep("carol")
    began = time.monotonic()
    with pytest.raises(
        PlaceBusyError, match="did not answer within 3 s; the host is off or asleep"
    ):
        desk.here(lambda: place.start(1, TICKET, tag="t3"))
    assert time.monotonic() - began < 30
    lab.wake("carol")
    unit = desk.run(place, "t3")
    desk.here(lambda: place.stop([unit], grace_s=2))


def doctor(lab: Lab, *words: str) -> list[dict[str, object]]:
    command = [
        sys.executable,
        "-m",
        "resilient_scoop",
        "doctor",
        "--json",
        "--python",
        sys.executable,
    ]
    done = lab.exec(DESK, [*command, *words])
    assert done.stdout, done.stderr
    hosts: list[dict[str, object]] = json.loads(done.stdout)["hosts"]
    return hosts


def test_the_doctor_finds_no_problem_with_workstations(lab: Lab) -> None:
    hosts = doctor(lab, "--host", "alice,bob,carol")
    assert [host["is_usable"] for host in hosts] == [True] * 3, hosts
    assert {host["route"] for host in hosts} <= {lab.address(DESK, 4), lab.address(DESK, 6)}


@pytest.mark.parametrize("silently", [False, True])
def test_the_doctor_proposes_a_tunnel_when_the_desk_lets_no_connection_in(
    lab: Lab,
    silently: bool,  # noqa: FBT001
) -> None:
    lab.refuse_connections(DESK, silently=silently)
    try:
        [host] = doctor(lab, "--host", "alice")
    finally:
        lab.accept_connections(DESK)
    assert host["route"] == "tunnel", host
    assert host["is_usable"]
    assert "--tunnel" in str(host["findings"])
