"""Messages without an admitted key are dropped, and a connection that is cut is closed."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator

import pytest
import zmq

from resilient_scoop.transport.remote import (
    HEARTBEAT_MS,
    SILENCE_MS,
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


class Relay:
    """A network between a client and the server, which may lose everything or reset the connection."""

    def __init__(self, port: int) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._to = port
        self.is_cut = False
        self.server: socket.socket
        self.threads = [threading.Thread(target=self._accept)]
        self.threads[0].start()

    def _accept(self) -> None:
        self._client, _ = self._listener.accept()
        self.server = socket.create_connection(("127.0.0.1", self._to))
        for one, other in ((self._client, self.server), (self.server, self._client)):
            self.threads.append(threading.Thread(target=self._pass_on, args=(one, other)))
            self.threads[-1].start()

    def _pass_on(self, one: socket.socket, other: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := one.recv(65536):
                if not self.is_cut:
                    other.sendall(data)

    def reset(self) -> None:
        """End both connections, that to the server by a reset."""
        self.server.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        for each in (self._client, self.server):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RD)
        for thread in self.threads:
            thread.join(HEARD_S)
        for each in (self._client, self.server, self._listener):
            each.close()


def connected(server: Server, port: int, keys: KeyPair, routing: bytes) -> zmq.Socket[bytes]:
    """Return a connection under a routing id, as an agent has it."""
    made: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.DEALER)
    for option, value in (
        (zmq.LINGER, 0), (zmq.IDENTITY, routing), (zmq.CURVE_PUBLICKEY, keys.public),
        (zmq.CURVE_SECRETKEY, keys.secret), (zmq.CURVE_SERVERKEY, server.keys.public),
        (zmq.HEARTBEAT_IVL, HEARTBEAT_MS), (zmq.HEARTBEAT_TTL, SILENCE_MS),
    ):  # fmt: skip
        made.setsockopt(option, value)
    made.connect(f"tcp://127.0.0.1:{port}")
    return made


def replace_connections_and_reset_them() -> None:
    """Let connections be replaced by another with their name, send more, and be reset."""
    server, keys = Server(), make_keys()
    server.admitted.add(keys.public.decode())
    ends = []
    for number in range(8):
        routing = b"%016d" % number
        relay = Relay(server.router.port)
        for port in (relay.port, server.router.port):
            end = connected(server, port, keys, routing)
            end.send(b"hello")
            assert server.hear(HEARD_S)
            ends.append(end)
        ends[-2].send(b"late")
        time.sleep(0.05)
        relay.reset()
        ends[-2].close()
    server.hear(2 * HEARTBEAT_MS / 1000, until=lambda _: False)
    for end in ends:
        end.close()
    server.router.close()
    sys.stdout.write("alive\n")


def test_a_connection_that_was_replaced_and_is_reset_does_not_end_the_broker() -> None:
    command = f"from {__name__} import *; replace_connections_and_reset_them()"
    done = subprocess.run(
        [sys.executable, "-c", command],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert (done.stdout, done.returncode) == ("alive\n", 0), done.stderr


def test_a_connection_whose_other_end_has_vanished_is_closed(server: Server) -> None:
    keys = make_keys()
    server.admitted.add(keys.public.decode())
    relay = Relay(server.router.port)
    client = RemoteDealer(f"tcp://127.0.0.1:{relay.port}", keys, server.keys.public, keeps=True)
    client.send([b"hello"])
    assert server.hear(HEARD_S)
    server.hear(1.5 * HEARTBEAT_MS / 1000, until=lambda _: False)
    relay.is_cut = True
    from_server = relay.threads[2]
    assert from_server.is_alive()
    server.hear(2 * SILENCE_MS / 1000, until=lambda _: not from_server.is_alive())
    assert not from_server.is_alive()
    client.close()
    relay.reset()


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
