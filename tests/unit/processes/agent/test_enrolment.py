"""An agent that cannot enroll gets the reason and a cure."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from resilient_scoop.errors import PlaceRefusedError
from resilient_scoop.processes.agent import enrolment
from resilient_scoop.processes.agent.enrolment import enroll
from resilient_scoop.transport.tickets import Ticket
from tests.unit.processes.broker.test_door import House


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    made = House(tmp_path)
    ends = threading.Event()

    def serve() -> None:
        while not ends.is_set():
            made.turn()

    thread = threading.Thread(target=serve)
    thread.start()
    yield made
    ends.set()
    thread.join()
    made.close()


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
    return port


def at(ticket: Ticket, *addresses: str) -> Ticket:
    return msgspec.structs.replace(ticket, addresses=list(addresses))


def test_an_agent_enrolls_at_the_first_address_that_it_reaches(house: House) -> None:
    ticket = house.ticket("alice")
    closed = f"127.0.0.1:{closed_port()}"
    admission = enroll(at(ticket, closed, *ticket.addresses))
    assert admission.host == "alice"
    assert admission.endpoint == f"tcp://{ticket.addresses[0]}"
    assert admission.keys.public != ticket.public.encode(), "the key of its own is a fresh one"
    assert list(house.door.ring.hosts.values()) == ["alice"]


def test_an_agent_that_reaches_nothing_names_the_port_to_open(house: House) -> None:
    port = closed_port()
    with pytest.raises(PlaceRefusedError) as caught:
        enroll(at(house.ticket("alice"), f"127.0.0.1:{port}", "no.such.host.invalid:1"))
    text = str(caught.value)
    assert f"127.0.0.1:{port}: Connection refused" in text
    assert "no.such.host.invalid" in text
    assert "--tunnel" in text
    assert "--external-address" in text


def test_an_agent_waits_for_a_broker_that_is_starting(house: House) -> None:
    with socket.create_server(("127.0.0.1", 0)) as front:
        port = front.getsockname()[1]
    ticket = house.ticket("alice")
    relay: list[socket.socket] = []

    def open_later() -> None:
        server = socket.create_server(("127.0.0.1", port))
        relay.append(server)

    opener = threading.Timer(0.5, open_later)
    opener.start()
    began = time.monotonic()
    reached, _ = enrolment._reached([f"127.0.0.1:{port}"])
    assert not reached
    with pytest.raises(PlaceRefusedError, match="does not take this ticket"):
        enroll(at(ticket, f"127.0.0.1:{port}"), patience_s=20.0)
    assert time.monotonic() - began < 15
    opener.join()
    relay[0].close()


def test_addresses_are_tried_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(address: str) -> str:
        time.sleep({"a": 0.3, "b": 0.3, "c": 30.0}[address])
        return "timed out"

    monkeypatch.setattr(enrolment, "_reach", slow)
    monkeypatch.setattr(enrolment, "REACH_S", 0.4)
    began = time.monotonic()
    reached, failures = enrolment._reached(["a", "b", "c"])
    assert time.monotonic() - began < 5
    assert reached == []
    assert failures == ["a: timed out", "b: timed out", "c: no answer in time"]


def test_a_slow_address_does_not_hold_up_one_that_can_be_reached(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def slow(address: str) -> str:
        time.sleep({"a": 60.0, "b": 0.0}[address])
        return ""

    monkeypatch.setattr(enrolment, "_reach", slow)
    began = time.monotonic()
    assert enrolment._reached(["a", "b"])[0] == ["b"]
    assert time.monotonic() - began < 30


def test_a_refused_ticket_and_an_unreachable_host_give_different_errors(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(enrolment, "ANSWER_S", 0.5)
    ticket = house.ticket("alice")
    enroll(ticket)
    with pytest.raises(PlaceRefusedError, match="does not take this ticket"):
        enroll(ticket)


def test_another_server_and_an_unreachable_host_give_different_errors(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(enrolment, "ANSWER_S", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        with pytest.raises(PlaceRefusedError, match="does not take this ticket"):
            enroll(at(house.ticket("alice"), address))


def test_a_refusal_of_the_broker_is_reported(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(enrolment, "__version__", "0.0.0")
    with pytest.raises(PlaceRefusedError, match=r"resilient_scoop 0\.0\.0"):
        enroll(house.ticket("alice"))
