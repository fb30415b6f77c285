"""A host over paramiko: commands, the route, tunnels."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import paramiko
import pytest

from resilient_scoop.errors import PlaceBusyError, PlaceRefusedError
from resilient_scoop.hosts.door import ConnectionLostError
from resilient_scoop.hosts.ssh import ChannelPipe
from tests.unit.hosts.test_ssh_login import Lab


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    monkeypatch.setenv("HOME", str(tmp_path))
    lab = Lab(tmp_path)
    yield lab
    lab.close()


@pytest.fixture
def echo() -> Iterator[int]:
    """Serve a port that returns the bytes of each connection in capitals when its input ends."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer(sock: socket.socket) -> None:
            with sock, contextlib.suppress(OSError):
                data = b"".join(iter(lambda: sock.recv(65536), b""))
                sock.sendall(data.upper())

        def serve() -> None:
            while True:
                try:
                    sock, _ = server.accept()
                except OSError:
                    return
                threading.Thread(target=answer, args=(sock,), daemon=True).start()

        threading.Thread(target=serve, daemon=True).start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)


def asked(address: str, data: bytes) -> bytes:
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=10) as sock:
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: sock.recv(65536), b""))


def test_a_command_gets_its_input_and_returns_status_and_both_outputs(lab: Lab) -> None:
    done = lab.door().run("cat; echo problem >&2; exit 7", "input\n")
    assert done.status == 7
    assert sorted(done.lines) == ["input", "problem"]


def test_a_command_that_does_not_end_is_given_up_in_time(lab: Lab) -> None:
    with pytest.raises(PlaceBusyError, match="did not end within 0 s"):
        lab.door().run("sleep 60", within_s=0.3)


def test_an_endless_output_is_limited(lab: Lab) -> None:
    done = lab.door().run("yes | head -c 1000000")
    assert len(done.output) < 300_000


def test_a_lost_connection_is_made_again(lab: Lab) -> None:
    door = lab.door()
    door.connect()
    assert door._login is not None
    lab.sshd.cut()
    door._login.transport.join(10)
    assert door.run("echo back").lines == ["back"]
    assert lab.sshd.logins == 2


@pytest.mark.parametrize(
    "error",
    [
        EOFError(),
        OSError("Socket is closed"),
        paramiko.SSHException("Key-exchange timed out waiting for key negotiation"),
        paramiko.ProxyCommandFailure("nc gateway 22", "Broken pipe"),
    ],
)
def test_every_error_of_paramiko_at_a_broken_connection_counts_as_its_loss(
    error: Exception,
) -> None:
    class Channel:
        # reading also sends: a message that there is room for more
        def recv(self, size: int) -> bytes:
            raise error

        def sendall(self, data: bytes) -> None:
            raise error

    pipe = ChannelPipe(Channel(), paramiko.Transport.__new__(paramiko.Transport), "alice")
    with pytest.raises(ConnectionLostError, match="connection to alice was lost"):
        list(pipe.lines())
    with pytest.raises(ConnectionLostError, match="connection to alice was lost"):
        pipe.write(b"ticket")


def test_a_command_ends_when_its_connection_breaks_while_output_is_read(lab: Lab) -> None:
    door = lab.door()
    pipe = door.open("yes | head -c 3000000; sleep 60")
    assert door._login is not None

    def no_message(data: object) -> None:
        raise EOFError

    door._login.transport._send_message = no_message  # as when its socket is reset
    with pytest.raises(ConnectionLostError, match="was lost"):
        list(pipe.lines())
    door.close()


def test_the_route_is_the_address_of_this_machine(lab: Lab) -> None:
    assert lab.door().route() == "127.0.0.1"


def test_a_tunnel_carries_bytes_in_both_directions_and_passes_on_ends(lab: Lab, echo: int) -> None:
    address = lab.door().tunnel(echo)
    assert address != f"127.0.0.1:{echo}"
    big = b"abc" * 300_000
    assert asked(address, b"hello") == b"HELLO"
    assert asked(address, big) == big.upper()


def test_several_connections_use_a_tunnel_at_once(lab: Lab, echo: int) -> None:
    address = lab.door().tunnel(echo)
    host, _, port = address.rpartition(":")
    socks = [socket.create_connection((host, int(port)), timeout=10) for _ in range(5)]
    for number, sock in enumerate(socks):
        sock.sendall(f"n{number}".encode())
        sock.shutdown(socket.SHUT_WR)
    for number, sock in enumerate(socks):
        assert sock.recv(100) == f"N{number}".encode()
        sock.close()


def test_a_tunnel_carries_a_limited_number_of_connections(
    lab: Lab, echo: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("resilient_scoop.hosts.ssh.TUNNELED_MAX", 2)
    host, _, port = lab.door().tunnel(echo).rpartition(":")
    socks = [socket.create_connection((host, int(port)), timeout=10) for _ in range(3)]
    assert socks[2].recv(10) == b""
    for sock in socks[:2]:
        sock.sendall(b"x")
        sock.shutdown(socket.SHUT_WR)
        assert sock.recv(10) == b"X"
    for sock in socks:
        sock.close()


def test_a_tunnel_is_opened_once(lab: Lab, echo: int) -> None:
    door = lab.door()
    assert door.tunnel(echo) == door.tunnel(echo)


def test_a_tunnel_that_is_opened_again_has_the_same_port(lab: Lab, echo: int) -> None:
    door = lab.door()
    address = door.tunnel(echo)
    assert door._login is not None
    lab.sshd.cut()
    door._login.transport.join(10)
    assert door.tunnel(echo) == address
    assert asked(address, b"hello") == b"HELLO"
    assert lab.sshd.logins == 2


def test_a_tunnel_to_a_port_where_nothing_listens_ends_connections(lab: Lab) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    assert asked(lab.door().tunnel(port), b"") == b""


def test_a_server_that_refuses_forwarding_is_named(lab: Lab, echo: int) -> None:
    lab.sshd.lets_forward = False
    with pytest.raises(PlaceRefusedError, match="AllowTcpForwarding yes"):
        lab.door().tunnel(echo)


def test_the_displayed_command_can_be_typed(lab: Lab) -> None:
    shown = lab.door().shell_line("exec sh -c 'true'")
    assert shown == f"ssh -p {lab.sshd.port} ann@127.0.0.1 'exec sh -c '\\''true'\\'''"
