"""Intruders at the port of a real broker: no byte of theirs reaches a handler, and the run continues.

A run is started as users do, and opened for other hosts with `rscoop invite`. The broker records
the messages that it passes to a handler, at the point where they leave the socket.
"""

from __future__ import annotations

import json
import os
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest
import zmq

from resilient_scoop import ids
from resilient_scoop.errors import PlaceRefusedError
from resilient_scoop.processes.agent.enrolment import Admission, enroll
from resilient_scoop.transport.remote import RemoteDealer, RemoteRouter, make_keys
from resilient_scoop.transport.sockets import Socket
from resilient_scoop.transport.tickets import Ticket, read_ticket
from resilient_scoop.wire import messages as wire
from tests.integration.runs import Place, finish, wait_until

pytestmark = pytest.mark.real

KNOCK_S = 1.3  # longer than a handshake may take
GUESTS = 500
SERVED_S = 5.0
SCRIPT = """
import sys, time
from pathlib import Path
from resilient_scoop import futures

def work(number):
    while number == 0 and not Path("stop").exists():
        time.sleep(0.05)
    return number * number

if __name__ == "__main__":
    print("begin", flush=True)
    print(sum(futures.map(work, range(20))))
"""
ANSWER = "begin\n2470\n"
WATCH = """
import os, sys

if "broker" in sys.orig_argv:
    import resilient_scoop.transport.remote as remote

    log = os.open(os.environ["DELIVERED"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    receive = remote.RemoteRouter.receive

    def watched(self, *args):
        for parcel in receive(self, *args):
            os.write(log, f"{parcel.key} {sum(map(len, parcel.frames))}\\n".encode())
            yield parcel

    def audit(event, args):
        if event == "pickle.find_class":
            os.write(log, b"unpickled 0\\n")

    remote.RemoteRouter.receive = watched
    sys.addaudithook(audit)
"""


@dataclass
class Target:
    """A run that other hosts can join, seen from outside."""

    place: Place
    run: Path
    process: subprocess.Popen[str]
    log: Path

    def ticket(self, *options: str) -> Ticket:
        """Return a new ticket, as `rscoop invite` prints it."""
        invite = ["invite", self.run.name, "--external-address", "127.0.0.1", *options]
        return read_ticket(self.place.rscoop(*invite).expect().encode())

    def address(self, ticket: Ticket) -> tuple[str, int]:
        host, _, port = ticket.addresses[0].rpartition(":")
        return host, int(port)

    def delivered(self) -> list[tuple[str, int]]:
        """Return the messages that the broker passed to a handler: sender's key, number of bytes."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return [(key, int(count)) for key, count in (line.rsplit(" ", 1) for line in lines)]


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """A run that is attacked; after all attacks it must end with its answer."""
    folder = tmp_path_factory.mktemp("intruders")
    (folder / "watch").mkdir()
    (folder / "watch" / "sitecustomize.py").write_text(WATCH)
    path = os.pathsep.join([str(folder / "watch"), os.environ.get("PYTHONPATH", "")])
    place = Place(
        folder, folder / "state", {"PYTHONPATH": path, "DELIVERED": str(folder / "delivered")}
    )
    place.write(SCRIPT)
    err = (folder / "stderr").open("w")  # read while the run lasts
    process = place.start("run", "-q", "-n", "2", "script.py", stderr=err)
    err.close()
    wait_until(lambda: any(each.name[0] != "." for each in place.runs()))
    wait_until(lambda: place.status()["state"] == "running", 10.0)
    made = Target(place, place.runs()[0], process, folder / "delivered")
    try:
        yield made
        (folder / "stop").touch()
        done = finish(process)
        assert done.expect() == ANSWER
        assert "Traceback" not in stderr_of(made)
        for log in (made.run / "logs").iterdir():
            assert "Traceback" not in log.read_text(), log.read_text()
        assert [key for key, _ in made.delivered() if key == "unpickled"] == []
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()
    place.assert_nothing_left()


@pytest.fixture
def ticket(target: Target) -> Ticket:
    """A ticket that has not been used."""
    return target.ticket("--host", "mallory")


@pytest.fixture
def admission(target: Target, ticket: Ticket) -> Admission:
    """An admission of the host mallory."""
    return enroll(ticket)


def knock(ticket: Ticket, *, public: bytes = b"", secret: bytes = b"", server: bytes = b"") -> None:
    """Send some messages as a ZeroMQ client, without encryption if no key is given."""
    context = zmq.Context()
    try:
        with closing(context.socket(zmq.DEALER)) as dealer:
            dealer.setsockopt(zmq.LINGER, 0)
            if public:
                dealer.setsockopt(zmq.CURVE_PUBLICKEY, public)
                dealer.setsockopt(zmq.CURVE_SECRETKEY, secret)
                dealer.setsockopt(zmq.CURVE_SERVERKEY, server or ticket.server.encode())
            dealer.connect(f"tcp://{ticket.addresses[0]}")
            for channel in (b"E", b"M", b"F"):
                dealer.send_multipart([channel, b"w1", b"let me in"])
            time.sleep(KNOCK_S)
    finally:
        context.term()


def assert_served(target: Target, within_s: float = SERVED_S) -> None:
    """Assert that a legitimate host is admitted soon, and that its messages are handled."""
    valid = target.ticket("--host", "friend")
    began = time.monotonic()
    admitted = enroll(valid)
    assert time.monotonic() - began < within_s
    assert admitted.host == "friend"


def test_messages_of_a_client_without_encryption_are_dropped(
    target: Target, ticket: Ticket
) -> None:
    before = target.delivered()
    knock(ticket)
    assert target.delivered() == before


def test_messages_of_a_client_with_an_unknown_key_are_not_handled(
    target: Target, ticket: Ticket
) -> None:
    before = target.delivered()
    keys = make_keys()
    knock(ticket, public=keys.public, secret=keys.secret)
    assert target.delivered() == before


def test_messages_of_a_client_with_another_server_key_are_not_handled(
    target: Target, ticket: Ticket
) -> None:
    before = target.delivered()
    own = (ticket.public.encode(), ticket.secret.encode())
    knock(ticket, public=own[0], secret=own[1], server=make_keys().public)
    assert target.delivered() == before


def test_messages_of_a_client_with_only_the_public_half_of_a_known_key_are_not_handled(
    target: Target, ticket: Ticket, admission: Admission
) -> None:
    before = target.delivered()
    knock(ticket, public=admission.keys.public, secret=make_keys().secret)
    assert target.delivered() == before


def test_messages_of_a_client_are_not_handled_while_the_guard_is_dead() -> None:
    """The key of the client is a known one."""
    server, keys = make_keys(), make_keys()
    router = RemoteRouter(server.secret, lambda *_: None, ["127.0.0.1"], 0)
    router._zap.close()
    endpoint = f"tcp://127.0.0.1:{router.port}"
    with closing(RemoteDealer(endpoint, keys, server.public, keeps=True)) as dealer:
        dealer.send([b"M", b"w1", b"let me in"])
        time.sleep(KNOCK_S)
        assert router._socket.poll(0) == 0
    Socket.close(router)


GREETING_3 = b"\xff" + bytes(8) + b"\x7f\x03\x01" + b"NULL".ljust(20, b"\0") + bytes(32)
READY = b"\x04\x19\x05READY\x0bSocket-Type\0\0\0\x06DEALER"
GARBAGE = {
    "random": os.urandom(4096),
    "http": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 50,
    "null": GREETING_3 + READY + b"\x00\x09let me in",
    "zmtp-1": b"\x01\x00" + b"\x0alet me in" * 20,
    "zmtp-2": b"\xff" + bytes(8) + b"\x7f\x01\x05\x00\x00" + b"\x00\x09let me in" * 20,
    "huge": GREETING_3.replace(b"NULL", b"CURVE").replace(b"CURVE\0", b"CURVE")
    + b"\x06" + struct.pack("!Q", 1 << 62) + bytes(1000),
    "tls": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + os.urandom(600),
    "ssh": b"SSH-2.0-OpenSSH_9.2p1\r\n" + os.urandom(600),
}  # fmt: skip


@pytest.mark.parametrize("kind", GARBAGE)
def test_garbage_is_dropped_and_hosts_are_served(target: Target, ticket: Ticket, kind: str) -> None:
    before = target.delivered()
    with socket.create_connection(target.address(ticket)) as raw:
        raw.settimeout(0.3)
        try:
            raw.sendall(GARBAGE[kind])
            while raw.recv(4096):
                pass
        except OSError:
            pass  # closed by the broker, or no answer
    assert target.delivered() == before
    assert_served(target)


def test_hosts_are_served_beside_many_silent_connections(target: Target, ticket: Ticket) -> None:
    with ExitStack() as silent:
        for _ in range(GUESTS):
            silent.enter_context(socket.create_connection(target.address(ticket)))
        assert_served(target)


def test_messages_of_a_replayed_handshake_are_not_handled(target: Target, ticket: Ticket) -> None:
    """Every byte that a legitimate host has sent is sent again, with the same timing."""
    relayed: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as tap:
        thread = threading.Thread(target=relay, args=[tap, target.address(ticket), relayed])
        thread.start()
        enroll(msgspec.structs.replace(ticket, addresses=[f"127.0.0.1:{tap.getsockname()[1]}"]))
        thread.join()
    assert sum(map(len, relayed)) > 400
    before = target.delivered()
    with socket.create_connection(target.address(ticket)) as raw:
        for piece in relayed:
            try:
                raw.sendall(piece)
            except OSError:
                break
            time.sleep(0.1)
        time.sleep(KNOCK_S)
    assert target.delivered() == before


def relay(tap: socket.socket, to: tuple[str, int], relayed: list[bytes]) -> None:
    """Relay two connections: the first only checks whether the port can be reached."""
    for _ in range(2):
        client, _ = tap.accept()
        with client, socket.create_connection(to) as server:
            back = threading.Thread(target=pump, args=[server, client, []])
            back.start()
            pump(client, server, relayed)
            back.join()


def pump(source: socket.socket, sink: socket.socket, relayed: list[bytes]) -> None:
    try:
        while data := source.recv(65536):
            relayed.append(data)
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        return


def test_a_used_ticket_is_refused(target: Target, ticket: Ticket, admission: Admission) -> None:
    before = target.delivered()
    with pytest.raises(PlaceRefusedError, match="used before"):
        enroll(ticket)
    assert target.delivered() == before


def test_an_expired_ticket_is_refused(target: Target) -> None:
    late = target.ticket("--expires", "1s")
    time.sleep(1.2)
    before = target.delivered()
    with pytest.raises(PlaceRefusedError, match="has expired"):
        enroll(late)
    assert target.delivered() == before


def test_no_secret_of_a_ticket_is_in_a_command_line_or_an_environment(
    target: Target, ticket: Ticket
) -> None:
    secrets = [ticket.secret.encode(), (target.run / "keys" / "server").read_bytes()]
    for folder in Path("/proc").glob("[0-9]*"):
        for name in ("cmdline", "environ"):
            try:
                text = (folder / name).read_bytes()
            except OSError:
                continue
            assert not any(secret in text for secret in secrets), folder
    assert (target.run / "keys" / "server").stat().st_mode & 0o777 == 0o600
    assert (target.run / "keys").stat().st_mode & 0o777 == 0o700


def test_a_host_cannot_send_as_a_process_of_another_host(
    target: Target, admission: Admission
) -> None:
    other = enroll(target.ticket("--host", "victim"))
    with closing(dealer_of(other)) as victim, closing(dealer_of(admission)) as liar:
        victim.send([b"M", b"a-victims-process", b"?"])
        wait_until(lambda: (other.keys.public.decode(), 19) in target.delivered())
        liar.send([b"M", b"a-victims-process", b"?"])
        wait_until(lambda: "in the name of a process of victim" in stderr_of(target))


def test_results_of_tasks_that_were_never_granted_are_ignored(
    target: Target, admission: Admission
) -> None:
    """The run's answer is checked at its end."""
    run = bytes.fromhex(json.loads((target.run / "run.json").read_text())["uuid"])[:8]
    digest = bytes(ids.DIGEST_BYTES)
    lie = wire.Outcome(0, 0, digest, digest * 20, [b"\x80\x04K\x07."] * 20, task=wire.Attempt(1, 1))
    hello = wire.Hello("worker", "mallory", "mallory:w1", os.getpid())
    with closing(dealer_of(admission)) as liar:
        for seq, message in enumerate((hello, wire.Outcomes("0", [lie])), 1):
            header = wire.pack_header(run, 0, 0 if seq == 1 else 1, seq, 0)
            liar.send([b"M", b"a-liars-worker-1", header, wire.encode(message)])
        wait_until(lambda: len(target.delivered()) > 0)
        time.sleep(0.5)
    assert target.process.poll() is None
    assert_served(target)


def dealer_of(admission: Admission) -> RemoteDealer:
    return RemoteDealer(admission.endpoint, admission.keys, admission.server, keeps=True)


def stderr_of(target: Target) -> str:
    return (target.place.folder / "stderr").read_text()
