"""Messages without an admitted key are dropped, and a connection that is cut is closed."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator

import pytest
import zmq

from resilient_scoop.transport.remote import (
    KeyPair,
    Parcel,
    RemoteDealer,
    RemoteRouter,
    make_keys,
    public_half,
)

HEARD_S = 5.0
SILENT_S = 0.7


class Server:
    """A broker's end, with the keys that its guard admits."""

    def __init__(self) -> None:
        self.keys = make_keys()
        self.admitted: set[str] = set()
        self.asked: list[tuple[str, str]] = []
        self.router = RemoteRouter(self.keys.secret, self.guard, ["127.0.0.1"], 0)

    def guard(self, key: str, address: str) -> str | None:
        self.asked.append((key, address))
        return None if key in self.admitted else "unknown"

    def client(self, keys: KeyPair | None = None, *, admitted: bool = True) -> RemoteDealer:
        keys = keys or make_keys()
        if admitted:
            self.admitted.add(keys.public.decode())
        endpoint = f"tcp://127.0.0.1:{self.router.port}"
        return RemoteDealer(endpoint, keys, self.keys.public, keeps=True)

    def hear(self, seconds: float, *, until: Callable[[list[Parcel]], bool] = bool) -> list[Parcel]:
        found: list[Parcel] = []
        end = time.monotonic() + seconds
        while not until(found) and time.monotonic() < end:
            self.router.wait(0.05)
            found += self.router.receive()
        return found


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.router.close()


def test_messages_of_a_client_with_an_admitted_key_arrive_under_its_key(server: Server) -> None:
    keys = make_keys()
    client = server.client(keys)
    client.send([b"hello", b"world"])
    parcels = server.hear(HEARD_S)
    assert [(each.key, each.frames) for each in parcels] == [
        (keys.public.decode(), [b"hello", b"world"])
    ]
    assert server.router.send(parcels[0].routing, [b"yes"])
    assert client.wait(HEARD_S) == set()
    assert client.receive() == [b"yes"]
    client.close()


def test_messages_of_a_client_with_another_key_are_dropped(server: Server) -> None:
    client = server.client(admitted=False)
    client.send([b"hello"])
    assert server.hear(SILENT_S) == []
    assert server.asked, "the guard was asked"
    client.close()


def test_messages_of_a_client_with_only_the_public_half_of_an_admitted_key_are_dropped(
    server: Server,
) -> None:
    admitted, own = make_keys(), make_keys()
    server.admitted.add(admitted.public.decode())
    client = server.client(KeyPair(admitted.public, own.secret), admitted=False)
    client.send([b"hello"])
    assert server.hear(SILENT_S) == []
    client.close()


def test_messages_of_a_client_that_knows_another_server_key_are_dropped(server: Server) -> None:
    keys = make_keys()
    server.admitted.add(keys.public.decode())
    endpoint = f"tcp://127.0.0.1:{server.router.port}"
    client = RemoteDealer(endpoint, keys, make_keys().public, keeps=True)
    client.send([b"hello"])
    assert server.hear(SILENT_S) == []
    client.close()


def test_messages_of_a_client_without_encryption_are_dropped(server: Server) -> None:
    with zmq.Context() as context, context.socket(zmq.DEALER) as client:
        client.setsockopt(zmq.LINGER, 0)
        client.connect(f"tcp://127.0.0.1:{server.router.port}")
        client.send(b"hello")
        assert server.hear(SILENT_S) == []


def test_no_client_is_admitted_while_the_guard_does_not_run(server: Server) -> None:
    """For example if the loop that runs it is blocked, or has ended."""
    client = server.client()
    client.send([b"hello"])
    end = time.monotonic() + SILENT_S
    while time.monotonic() < end:
        with pytest.raises(zmq.Again):
            server.router._socket.recv(zmq.NOBLOCK)
        time.sleep(0.05)
    assert len(server.hear(HEARD_S)) == 1, "it is let in as soon as the guard is asked"
    client.close()


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\nHost: broker\r\n\r\n",
        bytes(range(256)) * 8,
        b"\xff" + bytes(8) + b"\x7f\x03\x00NULL" + bytes(48),
        b"\x01\x00hello",
        b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f\x01" + bytes(64),
    ],
    ids=["http", "garbage", "null-mechanism", "zmtp-1", "huge-frame"],
)
def test_garbage_is_dropped_and_other_messages_arrive(server: Server, data: bytes) -> None:
    with socket.create_connection(("127.0.0.1", server.router.port)) as intruder:
        intruder.sendall(data)
        assert server.hear(SILENT_S) == []
        client = server.client()
        client.send([b"hello"])
        assert [each.frames for each in server.hear(HEARD_S)] == [[b"hello"]]
        client.close()


def test_a_connection_that_is_cut_is_closed_and_cannot_come_back(server: Server) -> None:
    keys = make_keys()
    client = server.client(keys)
    client.send([b"hello"])
    routing = server.hear(HEARD_S)[0].routing
    server.admitted.clear()
    server.asked.clear()
    server.router.cut(routing)

    def comes_back(_: list[Parcel]) -> bool:
        client.send([b"again"])
        return bool(server.asked)

    assert server.hear(HEARD_S, until=comes_back) == []
    assert server.asked, "its connection was closed, so it connects again"
    assert server.hear(SILENT_S, until=lambda _: False) == []
    assert not server.router.send(routing, [b"secret"])
    client.close()


def test_a_message_to_an_unknown_connection_is_reported(server: Server) -> None:
    assert not server.router.send(b"unknown", [b"hello"])


def test_a_port_that_is_in_use_is_an_error(server: Server) -> None:
    with pytest.raises(OSError, match="in use"):
        RemoteRouter(server.keys.secret, server.guard, ["127.0.0.1"], server.router.port)


def test_a_message_without_a_connection_is_lost_and_does_not_block() -> None:
    client = RemoteDealer("tcp://127.0.0.1:9", make_keys(), make_keys().public)
    client.send([b"hello"])
    client.close()


def test_a_public_key_belongs_to_its_secret_key() -> None:
    keys = make_keys()
    assert public_half(keys.secret) == keys.public
