"""A host over the `ssh` program: its error messages become our sentences."""

from __future__ import annotations

import contextlib
import socket
import threading
from pathlib import Path

import pytest

from resilient_scoop.errors import (
    PlaceBusyError,
    PlaceError,
    PlaceRefusedError,
    SilentServerError,
)
from resilient_scoop.hosts.hostfile import Host
from resilient_scoop.hosts.ssh_login import LoginSettings
from resilient_scoop.hosts.ssh_system import SystemDoor
from tests import stand_in_ssh
from tests.fake_sshd import make_key

CHANGED = """\
@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@
@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @
@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@
IT IS POSSIBLE THAT SOMEONE IS DOING SOMETHING NASTY!
Someone could be eavesdropping on you right now (man-in-the-middle attack)!
It is also possible that a host key has just been changed.
The fingerprint for the ED25519 key sent by the remote host is
SHA256:0e4HF6wnk3+ymWk4cyBvYyWvXJ0Yg2tpYB7Y2qfBL0I.
Please contact your system administrator.
Add correct host key in /home/ann/.ssh/known_hosts to get rid of this message.
Offending ED25519 key in /home/ann/.ssh/known_hosts:7
Host key for ws1 has changed and you have requested strict checking.
Host key verification failed.
"""
REFUSED = [
    (CHANGED, "possible attack"),
    (
        CHANGED,
        "ED25519 SHA256:0e4HF6wnk3+ymWk4cyBvYyWvXJ0Yg2tpYB7Y2qfBL0I, and is not the known one",
    ),
    (CHANGED, "(/home/ann/.ssh/known_hosts line 7)"),
    (
        (
            "No ED25519 host key is known for ws1 and you have requested strict checking.\n"
            "Host key verification failed.\n"
        ),
        "is not known (ED25519)",
    ),
    ("ssh: Could not resolve hostname ws1: Name or service not known\n", "no host with the name"),
    ("ann@ws1: Permission denied (publickey,password).\n", "it accepts publickey,password"),
    (
        (
            "Received disconnect from 10.0.0.1 port 22:2: Too many authentication failures\n"
            "Disconnected from 10.0.0.1 port 22\n"
        ),
        "refuses the login",
    ),
    (
        (
            "Unable to negotiate with 10.0.0.1 port 22: no matching host key type found. "
            "Their offer: ssh-rsa,ssh-dss\n"
        ),
        "Their offer: ssh-rsa",
    ),
    ("Error: remote port forwarding failed for listen port 4000\n", "AllowTcpForwarding"),
    (
        "Bad owner or permissions on /home/ann/.ssh/config\n",
        "Bad owner or permissions on /home/ann",
    ),
]
BUSY = [
    ("ssh: Could not resolve hostname ws1: Temporary failure in name resolution\n", "name server"),
    ("ssh: connect to host ws1 port 22: Connection refused\n", "nothing listens on port 22"),
    ("ssh: connect to host ws1 port 22: Connection timed out\n", "did not answer within 7 s"),
    ("ssh: connect to host ws1 port 22: No route to host\n", "No route to host"),
    (
        (
            "channel 0: open failed: connect failed: Connection refused\n"
            "stdio forwarding failed\nConnection closed by UNKNOWN port 65535\n"
        ),
        "the jump host does not connect",
    ),
]
RETRIED = [
    (
        (
            "kex_exchange_identification: Connection closed by remote host\n"
            "Connection closed by 10.0.0.1 port 22\n"
        ),
        "MaxStartups",
    ),
    ("client_loop: send disconnect: Broken pipe\n", "was lost (client_loop"),
]


@pytest.fixture
def door(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SystemDoor:
    monkeypatch.setattr("resilient_scoop.hosts.ssh_system.TRIES", 2)
    monkeypatch.setattr("resilient_scoop.hosts.ssh_system.WAIT_MAX_S", 0.01)
    program = str(stand_in_ssh.write_ssh(tmp_path))
    return SystemDoor(Host("ws1", user="ann"), "", LoginSettings(connect_s=7), program)


@pytest.mark.parametrize(("text", "reason"), REFUSED)
def test_a_permanent_error_of_ssh_is_a_refusal(
    door: SystemDoor, tmp_path: Path, text: str, reason: str
) -> None:
    stand_in_ssh.complain(tmp_path, text)
    with pytest.raises(PlaceRefusedError) as caught:
        door.run("true")
    assert str(caught.value).startswith("ws1: ")
    assert reason in str(caught.value)


@pytest.mark.parametrize(("text", "reason"), BUSY + RETRIED)
def test_a_temporary_error_of_ssh_is_tried_again_later(
    door: SystemDoor, tmp_path: Path, text: str, reason: str
) -> None:
    stand_in_ssh.complain(tmp_path, text)
    with pytest.raises(PlaceBusyError) as caught:
        door.run("true")
    assert str(caught.value).startswith("ws1: ")
    assert reason in str(caught.value)


@pytest.mark.parametrize(("complaints", "tries"), [(BUSY, 1), (RETRIED, 2)])
def test_only_broken_logins_are_repeated_at_once(
    door: SystemDoor, tmp_path: Path, complaints: list[tuple[str, str]], tries: int
) -> None:
    for text, _ in complaints:
        stand_in_ssh.complain(tmp_path, text)
        (tmp_path / "tries").write_text("")
        with pytest.raises(PlaceBusyError):
            door.run("true")
        assert (tmp_path / "tries").read_text() == "x" * tries


CUT_OFF = "kex_exchange_identification: Connection closed by remote host\n"
LATE = "Connection timed out during banner exchange\n"


@pytest.mark.parametrize(
    ("complaint", "said", "error", "reason"),
    [
        (CUT_OFF, b"HTTP/1.1 400 Bad Request\r\n", PlaceRefusedError, "it says 'HTTP/1.1 400"),
        (CUT_OFF, b"Exceeded MaxStartups\r\n", PlaceBusyError, "login (Exceeded MaxStartups)"),
        (CUT_OFF, b"", SilentServerError, "without a word"),
        (CUT_OFF, b"SSH-2.0-x\r\n", PlaceBusyError, "at login;"),
        (LATE, b"220 mail\r\n", PlaceRefusedError, "it says '220 mail'"),
    ],
)
def test_the_greeting_of_a_server_that_ssh_does_not_understand_is_read(
    tmp_path: Path,
    door: SystemDoor,
    complaint: str,
    said: bytes,
    error: type[PlaceError],
    reason: str,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            with contextlib.suppress(OSError):
                while True:
                    sock, _ = server.accept()
                    with sock:
                        sock.sendall(said)

        threading.Thread(target=answer, daemon=True).start()
        (tmp_path / "more").write_text(f"hostname 127.0.0.1\nport {server.getsockname()[1]}\n")
        stand_in_ssh.complain(tmp_path, f"{complaint}\n")
        with pytest.raises(error) as caught:
            door.run("true")
        assert type(caught.value) is error
        assert reason in str(caught.value)
        server.shutdown(socket.SHUT_RDWR)


def test_an_encrypted_key_is_named(
    tmp_path: Path, door: SystemDoor, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_key().write_private_key_file(str(tmp_path / "id"), password="secret")
    (tmp_path / "more").write_text(f"identityfile {tmp_path}/id\n")
    stand_in_ssh.complain(tmp_path, "ann@ws1: Permission denied (publickey).\n")
    with pytest.raises(PlaceRefusedError, match=r"the key .*/id is encrypted and no SSH agent"):
        door.run("true")


def test_a_missing_program_is_named() -> None:
    door = SystemDoor(Host("ws1"), "", LoginSettings(), "/nowhere/ssh")
    with pytest.raises(
        PlaceRefusedError, match=r"/nowhere/ssh cannot be started .* --ssh paramiko"
    ):
        door.run("true")


def test_a_command_returns_status_and_output(door: SystemDoor) -> None:
    done = door.run("cat; exit 7", "input\n")
    assert (done.status, done.lines) == (7, ["input"])


def test_a_configuration_that_openssh_refuses_is_named(tmp_path: Path, door: SystemDoor) -> None:
    (tmp_path / "bad").write_text("command-line: line 0: Bad configuration option: x\n")
    with pytest.raises(PlaceRefusedError, match=r"does not accept its configuration: .*option: x"):
        door.connect()


def test_a_program_that_does_not_end_is_killed_in_time(door: SystemDoor) -> None:
    with pytest.raises(PlaceBusyError, match="did not end within 0 s"):
        door.run("sleep 60", within_s=0.3)


def test_the_displayed_command_can_be_typed(door: SystemDoor) -> None:
    assert door.shell_line("true") == "ssh -o ConnectTimeout=7 -l ann ws1 'true'"
