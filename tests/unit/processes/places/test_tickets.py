"""Which address of the broker a host is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from resilient_scoop.hosts.hostfile import Host
from resilient_scoop.processes.places.calls import Share
from resilient_scoop.processes.places.settings import PlacesSettings
from resilient_scoop.processes.places.tickets import addresses, ticket_maker
from tests.unit.processes.places.fake_place import FakePlace


def told(
    route: str | None = "10.0.0.1", *, host_tunnel: bool | None = None, **settings: Any
) -> list[str]:
    place = FakePlace("ws1")
    place.address = route
    share = Share(Host("ws1", tunnel=host_tunnel), 2)
    return addresses(
        place, share, PlacesSettings(run_dir="r", run_id="r", hosts=[], port=7000, **settings)
    )


def test_a_host_is_told_our_address_on_the_route_to_it() -> None:
    assert told() == ["10.0.0.1:7000"]
    assert told("fd00::1") == ["[fd00::1]:7000"]


def test_an_external_address_replaces_it() -> None:
    assert told(external_address="head.example") == ["head.example:7000"]


def test_without_a_route_ssh_carries_the_traffic() -> None:
    assert told(None) == ["127.0.0.1:17000"]


@pytest.mark.parametrize(
    ("of_host", "of_run", "is_tunnel"),
    [(None, True, True), (True, False, True), (False, True, False), (None, False, False)],
)
def test_a_tunnel_is_used_as_the_host_says_or_else_the_run(
    *, of_host: bool | None, of_run: bool, is_tunnel: bool
) -> None:
    found = told(host_tunnel=of_host, tunnel=of_run, external_address="head")
    assert found == ["127.0.0.1:17000" if is_tunnel else "head:7000"]


def test_a_ticket_names_the_host_its_workers_and_is_used_once() -> None:
    seen: list[Any] = []

    def issue(run_dir: Path, host: str, **rest: Any) -> bytes:
        seen.append((run_dir, host, rest))
        return b"{}"

    settings = PlacesSettings(run_dir="r", run_id="r", hosts=[], port=7000)
    make = ticket_maker(settings, issue)
    assert make(FakePlace("ws1"), Share(Host("ws1"), None, 4)) == b"{}"
    (found,) = seen
    assert found == (
        Path("r"), "ws1",
        {
            "valid_s": 600.0, "uses": 1, "addresses": ["10.0.0.1:7000"],
            "extra": {"workers": None, "workers_max": 4},
        },
    )  # fmt: skip
