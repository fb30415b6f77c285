"""The door of a broker: which agents enroll, whose messages count, which hosts are cut off (DR1 to DR4)."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from resilient_scoop._version import __version__
from resilient_scoop.ids import PeerId
from resilient_scoop.processes.broker.door import RemoteDoor
from resilient_scoop.processes.options import RunOptions
from resilient_scoop.processes.starting import ChildSettings, ScriptSpec
from resilient_scoop.transport import tickets
from resilient_scoop.transport.remote import KeyPair, RemoteDealer, make_keys
from resilient_scoop.transport.sockets import RouterSocket, local_endpoint
from resilient_scoop.transport.tickets import Ticket
from resilient_scoop.wire import enrol, files

HEARD_S = 5.0
SILENT_S = 0.5


class House:
    """A door, and the agents that connect to it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "sock").mkdir()
        (folder / "logs").mkdir()
        self.local = RouterSocket(local_endpoint(str(folder / "sock")))
        self.notes: list[str] = []
        self.joined: list[str] = []
        self.messages: list[tuple[bytes, list[bytes], str]] = []
        self.clients: list[RemoteDealer] = []
        settings = ChildSettings(
            run_dir=str(folder), run_id="r", run_key="r-1", run=bytes(16), seed=1, script=ScriptSpec(),
            options=RunOptions(workers=0, grid=True, listen=("127.0.0.1",)),
        )  # fmt: skip
        self.door = RemoteDoor(
            settings, self.local, self.notes.append, lambda: None, self.joined.append
        )

    def ticket(self, host: str, *, uses: int = 1) -> Ticket:
        line = tickets.issue(
            self.folder, host, run_key="r-1", valid_s=60, uses=uses, addresses=["127.0.0.1"]
        )
        return tickets.read_ticket(line)

    def client(self, keys: KeyPair) -> RemoteDealer:
        door = tickets.door_of(self.folder)
        made = RemoteDealer(f"tcp://127.0.0.1:{door.port}", keys, door.key.encode(), keeps=True)
        self.clients.append(made)
        return made

    def enroll(self, ticket: Ticket, **fields: object) -> tuple[KeyPair, object]:
        """Enroll as an agent does; return its keys and the answer."""
        keys = make_keys()
        client = self.client(KeyPair(ticket.public.encode(), ticket.secret.encode()))
        request = {
            "ticket": ticket.id, "key": keys.public, "host": ticket.host or "own-name",
            "python": sys.version.split()[0], "version": __version__, "byteorder": sys.byteorder,
            "pid": os.getpid(), "cores": 2, **fields,
        }  # fmt: skip
        client.send([b"E", enrol.encode(enrol.Enroll(**request))])  # type: ignore[arg-type]
        answer = self.await_answer(client, lambda frames: frames[0] == b"E")
        return keys, None if answer is None else enrol.decode_answer(answer[1])

    def agent(self, host: str) -> RemoteDealer:
        keys, answer = self.enroll(self.ticket(host))
        assert answer == enrol.Enrolled(host, self.door.ring.numbers[host])
        return self.client(keys)

    def turn(self, seconds: float = 0.02) -> None:
        self.local.wait(seconds)
        self.messages += self.door.receive()
        self.door.pass_files()

    def await_answer(
        self, client: RemoteDealer, wanted: Callable[[list[bytes]], bool], seconds: float = HEARD_S
    ) -> list[bytes] | None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.turn()
            frames = client.receive()
            if frames is not None and wanted(frames):
                return frames
        return None

    def hear(self, seconds: float = HEARD_S) -> list[tuple[bytes, list[bytes], str]]:
        end = time.monotonic() + seconds
        while not self.messages and time.monotonic() < end:
            self.turn()
        found, self.messages = self.messages, []
        return found

    def close(self) -> None:
        for client in self.clients:
            client.close()
        self.door.close()
        self.local.close()


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    made = House(tmp_path)
    yield made
    made.close()


def test_messages_of_an_enrolled_agent_belong_to_its_host(house: House) -> None:
    """DR1."""
    agent = house.agent("alice")
    agent.send([b"M", b"w1", b"head", b"body"])
    assert house.hear() == [(PeerId(b"w1"), [b"head", b"body"], "alice")]
    assert house.joined == ["alice"]
    assert house.door.is_guest(PeerId(b"w1"))
    assert house.door.send(PeerId(b"w1"), [b"answer"])
    assert house.await_answer(agent, lambda frames: True) == [b"M", b"w1", b"answer"]


def test_a_host_keeps_its_number_and_no_other_host_gets_it(house: House) -> None:
    numbers = []
    for name in ("alice", "bob", "alice", "carol"):
        _, answer = house.enroll(house.ticket(name))
        assert isinstance(answer, enrol.Enrolled)
        numbers.append(answer.number)
    assert numbers == [1, 2, 1, 3]
    house.door.ring.shut_out("bob", "it was revoked")
    assert tickets.KeyRing(house.folder).numbers == {"alice": 1, "bob": 2, "carol": 3}


def test_an_agent_without_a_host_in_its_ticket_has_its_own_name(house: House) -> None:
    _, answer = house.enroll(house.ticket(""))
    assert answer == enrol.Enrolled("own-name")


@pytest.mark.parametrize("name", ["local", "a b", "../x", "", "x" * 80, "-x"])
def test_an_impossible_host_name_is_refused(house: House, name: str) -> None:
    _, answer = house.enroll(house.ticket(""), host=name)
    assert isinstance(answer, enrol.NotEnrolled)
    assert "name of a host" in answer.why


def test_a_ticket_counts_as_used_before_it_is_answered(house: House) -> None:
    """DR3."""
    ticket = house.ticket("alice")
    _, answer = house.enroll(ticket)
    assert isinstance(answer, enrol.Enrolled)
    _, again = house.enroll(ticket)
    assert again is None
    assert any("used before" in text for text in house.notes)


def test_the_key_of_a_ticket_permits_only_an_enrolment(house: House) -> None:
    """DR3."""
    ticket = house.ticket("alice")
    client = house.client(KeyPair(ticket.public.encode(), ticket.secret.encode()))
    client.send([b"M", b"w1", b"evil"])
    client.send([b"F", files.encode(files.CodeWanted())])
    assert house.hear(SILENT_S) == []
    assert house.door.refused["key"] >= 1


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"python": "2.7.18"}, "Python 2.7.18"),
        ({"version": "0.0.1"}, "resilient_scoop 0.0.1"),
        ({"byteorder": "big" if sys.byteorder == "little" else "little"}, "endian"),
        ({"key": b"short"}, "CURVE"),
    ],
)
def test_an_incompatible_agent_gets_the_reason_and_keeps_its_ticket(
    house: House, fields: dict[str, object], text: str
) -> None:
    ticket = house.ticket("alice")
    _, answer = house.enroll(ticket, **fields)
    assert isinstance(answer, enrol.NotEnrolled)
    assert text in answer.why
    _, answer = house.enroll(ticket)
    assert isinstance(answer, enrol.Enrolled)


def test_a_host_cannot_send_as_a_process_of_another_host(house: House) -> None:
    """DR2."""
    alice, bob = house.agent("alice"), house.agent("bob")
    alice.send([b"M", b"w1", b"mine"])
    assert len(house.hear()) == 1
    bob.send([b"M", b"w1", b"stolen"])
    assert house.hear(SILENT_S) == []
    assert house.door.refused["identity"] == 1
    assert any("bob" in text and "alice" in text for text in house.notes)
    house.door.send(PeerId(b"w1"), [b"secret"])
    assert house.await_answer(bob, lambda frames: True, SILENT_S) is None


@pytest.mark.parametrize(
    "frames", [[b"M"], [b"M", b""], [b"M", b"x" * 40, b"a"], [b"X", b"a"], [b""], [b"F", b"junk"]]
)
def test_a_message_that_cannot_be_read_is_counted_and_dropped(
    house: House, frames: list[bytes]
) -> None:
    agent = house.agent("alice")
    agent.send(frames)
    assert house.hear(SILENT_S) == []
    assert sum(house.door.refused.values()) == 1
    agent.send([b"M", b"w1", b"fine"])
    assert len(house.hear()) == 1


def test_a_revoked_host_is_disconnected_and_gets_no_connection(house: House) -> None:
    """DR4."""
    agent = house.agent("alice")
    agent.send([b"M", b"w1", b"before"])
    assert len(house.hear()) == 1
    house.door.shut_out("alice", "it was revoked")
    house.door.send(PeerId(b"w1"), [b"secret"])
    for _ in range(20):
        agent.send([b"M", b"w1", b"after"])
        house.turn(0.05)
    assert house.messages == []
    assert agent.receive() is None
    assert any("it was revoked" in text for text in house.notes)


def test_a_new_enrolment_disconnects_the_older_agent_of_the_host(house: House) -> None:
    older = house.agent("alice")
    older.send([b"M", b"w1", b"before"])
    assert len(house.hear()) == 1
    newer = house.agent("alice")
    older.send([b"M", b"w1", b"after"])
    assert house.hear(SILENT_S) == []
    newer.send([b"M", b"w2", b"mine"])
    assert [each[0] for each in house.hear()] == [b"w2"]


def test_a_large_frame_is_sent_to_a_host_once_and_again_when_the_host_lacks_it(
    house: House,
) -> None:
    agent = house.agent("alice")
    large = b"x" * (1 << 20)
    for worker in (b"w1", b"w2"):
        agent.send([b"M", worker, b"hello"])
    while not house.door.is_guest(PeerId(b"w2")):
        assert house.hear()
    house.door.send(PeerId(b"w1"), [b"head", large])
    assert house.await_answer(agent, lambda frames: True) == [b"M", b"w1", b"head", large]
    house.door.send(PeerId(b"w2"), [b"head", large])
    short = house.await_answer(agent, lambda frames: True)
    assert short is not None
    assert short[:4] == [b"S", b"w2", b"\x01", b"head"]
    agent.send([b"L", short[4]])
    agent.send([b"M", b"w1", b"hello"])
    assert house.hear()
    house.door.send(PeerId(b"w2"), [b"head", large])
    assert house.await_answer(agent, lambda frames: True) == [b"M", b"w2", b"head", large]


def test_new_keys_disconnect_all_hosts(house: House) -> None:
    agent = house.agent("alice")
    agent.send([b"M", b"w1", b"before"])
    assert len(house.hear()) == 1
    house.door.rekey()
    for _ in range(20):
        agent.send([b"M", b"w1", b"after"])
        house.turn(0.05)
    assert house.messages == []
    again = house.agent("alice")
    again.send([b"M", b"w1", b"mine"])
    assert len(house.hear()) == 1


def test_processes_that_have_ended_are_forgotten(house: House) -> None:
    agent = house.agent("alice")
    for number in range(300):
        agent.send([b"M", b"w%d" % number, b"x"])
    end = time.monotonic() + HEARD_S
    while len(house.messages) < 300 and time.monotonic() < end:
        house.turn()
    assert len(house.messages) == 300
    house.door.prune({PeerId(b"w299")})
    assert house.door.is_guest(PeerId(b"w299"))
    assert not house.door.is_guest(PeerId(b"w0"))


def test_refusals_of_one_kind_are_reported_ten_times(house: House) -> None:
    agent = house.agent("alice")
    for _ in range(30):
        agent.send([b"X", b"junk"])
    end = time.monotonic() + HEARD_S
    while house.door.refused["channel"] < 30 and time.monotonic() < end:
        house.turn()
    assert house.door.refused["channel"] == 30
    assert len(house.notes) == 10
    assert house.notes[-1].endswith("only counted")


def fill(house: House) -> None:
    """Leave no space for the files of the door."""
    lines = house.folder / tickets.KEYS / "enrolled"
    lines.unlink(missing_ok=True)
    lines.symlink_to("/dev/full")


def test_a_full_disk_prevents_an_enrolment_and_the_broker_continues(house: House) -> None:
    fill(house)
    _, answer = house.enroll(house.ticket("alice"))
    assert isinstance(answer, enrol.NotEnrolled)
    assert "No space left" in answer.why
    assert any("alice" in text and "No space left" in text for text in house.notes)
    (house.folder / tickets.KEYS / "enrolled").unlink()
    house.agent("alice")


def test_a_host_is_revoked_although_the_disk_is_full(house: House) -> None:
    """DR4."""
    alice = house.agent("alice")
    alice.send([b"M", b"w1", b"mine"])
    assert len(house.hear()) == 1
    fill(house)
    house.door.shut_out("alice", "it was revoked")
    assert any("written down" in text for text in house.notes)
    alice.send([b"M", b"w1", b"mine"])
    assert house.hear(SILENT_S) == []
    (house.folder / tickets.KEYS / "enrolled").unlink()
    house.agent("bob")
    again = tickets.KeyRing(house.folder)
    assert list(again.gone.values()) == ["it was revoked"]
    assert list(again.hosts.values()) == ["bob"]


def test_records_of_earlier_connections_are_dropped(house: House) -> None:
    for _ in range(3):
        agent = house.agent("alice")
        agent.send([b"M", b"w1", b"mine"])
        assert len(house.hear()) == 1
    assert len(house.door._router._wires) == 1
