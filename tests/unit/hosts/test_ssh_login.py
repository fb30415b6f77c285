"""Logging in: each failure is one sentence with the cause and the cure."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import paramiko
import pytest

from resilient_scoop.errors import PlaceBusyError, PlaceError, PlaceRefusedError, SilentServerError
from resilient_scoop.hosts import ssh_login
from resilient_scoop.hosts.hostfile import Host
from resilient_scoop.hosts.known_hosts import fingerprint
from resilient_scoop.hosts.ssh import SshDoor
from resilient_scoop.hosts.ssh_config import SshConfig
from resilient_scoop.hosts.ssh_login import LOGINS_MAX, SILENT_TRIES, TRIES, LoginSettings
from tests.fake_sshd import FakeSshd, _Server, make_key

PATIENT = LoginSettings(connect_s=15.0)
QUICK = LoginSettings(connect_s=1.0)
"""For servers that do not answer; on a busy machine, those that do may need longer."""


class Lab:
    """A server, and the files of a user who may log in there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.key = make_key()
        self.sshd = FakeSshd(folder, self.key)
        self.key.write_private_key_file(str(folder / "id"))
        self.known = folder / "known_hosts"
        self.known.write_text(self.sshd.known_line)
        self.more = ""
        self.doors: list[SshDoor] = []

    def config(self) -> SshConfig:
        (self.folder / "config").write_text(
            f"{self.more}\nIdentityFile {self.folder}/id\nIdentityAgent none\n"
            f"UserKnownHostsFile {self.known}\nGlobalKnownHostsFile none\n"
        )
        return SshConfig(str(self.folder / "config"))

    def door(
        self, *, user: str = "ann", port: int = 0, address: str = "127.0.0.1",
        settings: LoginSettings = PATIENT,
    ) -> SshDoor:  # fmt: skip
        host = Host(name="ws1", address=address, user=user, port=port or self.sshd.port)
        door = SshDoor(host, self.config(), settings)
        self.doors.append(door)
        return door

    def close(self) -> None:
        for door in self.doors:
            door.close()
        self.sshd.close()


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    monkeypatch.setenv("HOME", str(tmp_path))
    lab = Lab(tmp_path)
    yield lab
    lab.close()


def failure(door: SshDoor) -> PlaceError:
    with pytest.raises(PlaceError) as caught:
        door.connect()
    assert str(caught.value).startswith("ws1: ")
    return caught.value


def refused(door: SshDoor) -> str:
    error = failure(door)
    assert type(error) is PlaceRefusedError
    return str(error)


def busy(door: SshDoor) -> str:
    error = failure(door)
    assert type(error) is PlaceBusyError
    return str(error)


def test_a_known_host_with_an_accepted_key_admits_us(lab: Lab) -> None:
    door = lab.door()
    door.connect()
    assert door.run("echo hello").lines == ["hello"]
    assert lab.sshd.logins == 1


def test_a_command_that_ends_at_once_is_answered_by_a_slow_server(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The test server's own order: the answer, then all that the command does."""
    check = _Server.check_channel_exec_request

    def slow(server: _Server, channel: Any, command: bytes) -> bool:
        is_accepted = check(server, channel, command)
        time.sleep(0.3)  # a command that runs already ends in this time
        return is_accepted

    monkeypatch.setattr(_Server, "check_channel_exec_request", slow)

    assert lab.door().run("echo hello").lines == ["hello"]


def test_an_unknown_host_key_is_refused_with_its_fingerprint(lab: Lab) -> None:
    lab.known.write_text("")
    text = refused(lab.door())
    assert "is not known" in text
    assert fingerprint(lab.sshd.host_key.asbytes()) in text
    assert "--accept-new-host-keys" in text
    assert lab.sshd.logins == 0


def test_a_host_that_only_an_authority_knows_is_refused_with_the_cure(lab: Lab) -> None:
    lab.known.write_text(f"@cert-authority * {lab.sshd.known_line.split(' ', 1)[1]}")
    assert "certificate authority only" in refused(lab.door())
    assert "--ssh system" in refused(lab.door())


@pytest.mark.parametrize("word", ["no", "off"])
def test_a_configuration_cannot_turn_the_check_of_host_keys_off(lab: Lab, word: str) -> None:
    lab.known.write_text("")
    lab.more = f"StrictHostKeyChecking {word}"
    assert "is not known" in refused(lab.door())


def test_a_new_host_key_is_learned_on_request(lab: Lab) -> None:
    lab.known.unlink()
    lab.door(settings=LoginSettings(accept_new_host_keys=True, connect_s=5)).connect()
    assert lab.known.read_text() == lab.sshd.known_line
    lab.door().connect()


def test_accept_new_in_the_configuration_also_learns_a_key(lab: Lab) -> None:
    lab.known.write_text("")
    lab.more = "StrictHostKeyChecking accept-new"
    lab.door().connect()
    assert lab.known.read_text() == lab.sshd.known_line


def test_a_changed_host_key_is_reported_as_a_possible_attack_and_never_accepted(lab: Lab) -> None:
    old = make_key()
    lab.known.write_text(
        f"# mine\n[127.0.0.1]:{lab.sshd.port} {old.get_name()} {old.get_base64()}\n"
    )
    lab.more = "StrictHostKeyChecking accept-new"
    text = refused(lab.door(settings=LoginSettings(accept_new_host_keys=True, connect_s=5)))
    assert "possible attack" in text
    assert f"{lab.known} line 2" in text
    assert fingerprint(old.asbytes()) in text
    assert fingerprint(lab.sshd.host_key.asbytes()) in text
    assert f"ssh-keygen -R '[127.0.0.1]:{lab.sshd.port}'" in text
    assert lab.sshd.logins == 0


def test_a_host_with_keys_of_several_types_is_asked_for_the_known_one(lab: Lab) -> None:
    known = paramiko.RSAKey.generate(2048)
    lab.sshd.more_host_keys = [known]
    name = f"[127.0.0.1]:{lab.sshd.port}"
    lab.known.write_text(f"{name} {known.get_name()} {known.get_base64()}\n")
    lab.door().connect()


def test_a_revoked_host_key_is_refused(lab: Lab) -> None:
    lab.known.write_text(lab.sshd.known_line + "@revoked * " + lab.sshd.known_line.split(" ", 1)[1])
    assert "is revoked" in refused(lab.door())


def test_a_wrong_user_is_refused(lab: Lab) -> None:
    text = refused(lab.door(user="eve"))
    assert f"eve@127.0.0.1 port {lab.sshd.port} refuses the login" in text
    assert f"`ssh-copy-id -p {lab.sshd.port} eve@127.0.0.1`" in text


def test_a_refused_key_is_named(lab: Lab) -> None:
    lab.sshd.user_keys = [make_key()]
    assert f"{lab.folder}/id is not accepted" in refused(lab.door())


def test_a_login_without_a_key_reports_it(lab: Lab) -> None:
    (lab.folder / "id").unlink()
    assert "there is no key to offer" in refused(lab.door())


def test_an_encrypted_key_without_an_agent_is_named(lab: Lab) -> None:
    lab.key.write_private_key_file(str(lab.folder / "id"), password="secret")
    text = refused(lab.door())
    assert f"the key {lab.folder}/id is encrypted and no SSH agent holds it" in text
    assert f"`ssh-add {lab.folder}/id`" in text


def test_a_file_that_is_not_a_key_is_named(lab: Lab) -> None:
    (lab.folder / "id").write_text("nonsense")
    assert f"{lab.folder}/id cannot be read" in refused(lab.door())


def test_a_second_key_is_tried(lab: Lab) -> None:
    make_key().write_private_key_file(str(lab.folder / "first"))
    lab.more = f"IdentityFile {lab.folder}/first"
    lab.door().connect()


@contextlib.contextmanager
def agent_with_the_key(lab: Lab) -> Iterator[Path]:
    """Run an SSH agent that holds the key; on the disk, it is encrypted."""
    if shutil.which("ssh-agent") is None:
        pytest.skip("ssh-agent is not installed")
    path = lab.folder / "agent"
    with subprocess.Popen(["ssh-agent", "-D", "-a", str(path)], stdout=subprocess.DEVNULL) as agent:
        try:
            until = time.monotonic() + 10
            while not path.exists():
                assert time.monotonic() < until
                time.sleep(0.01)
            environment = {**os.environ, "SSH_AUTH_SOCK": str(path)}
            subprocess.run(
                ["ssh-add", "-q", str(lab.folder / "id")], env=environment, check=True,
                capture_output=True,
            )  # fmt: skip
            lab.key.write_private_key_file(str(lab.folder / "id"), password="secret")
            lab.more = f"IdentityAgent {path}"
            yield path
        finally:
            agent.terminate()


def test_an_agent_holds_an_encrypted_key(lab: Lab) -> None:
    with agent_with_the_key(lab):
        lab.door().connect()


def test_the_key_of_an_agent_may_be_listed_by_its_private_or_its_public_file(lab: Lab) -> None:
    with agent_with_the_key(lab):
        lab.more += "\nIdentitiesOnly yes"
        words = ["ssh-keygen", "-q", "-p", "-P", "secret", "-N", "secret", "-f", f"{lab.folder}/id"]
        subprocess.run(words, check=True, stdout=subprocess.DEVNULL)  # in OpenSSH's format
        lab.door().connect()  # the public part is read from the encrypted file
        (lab.folder / "id").unlink()
        (lab.folder / "only.pub").write_text(f"{lab.key.get_name()} {lab.key.get_base64()} ann\n")
        lab.more += f"\nIdentityFile {lab.folder}/only.pub"
        lab.door().connect()


def test_listed_keys_of_an_agent_are_offered_first(lab: Lab) -> None:
    with agent_with_the_key(lab) as path:
        for number in range(3):
            file = lab.folder / f"more{number}"
            make_key().write_private_key_file(str(file))
            environment = {**os.environ, "SSH_AUTH_SOCK": str(path)}
            subprocess.run(["ssh-add", "-q", str(file)], env=environment, check=True)
        lab.more += f"\nIdentityFile {lab.folder}/more2"
        to = lab.config().target(Host(name="ws1", address="127.0.0.1"))
        with contextlib.ExitStack() as stack:
            keys = [load() for label, load in ssh_login._keys(to, stack) if "the agent's" in label]
            found = [key.get_base64() for key in keys]
        assert found[0] == ssh_login.public_part(lab.folder / "more2")
        assert len(found) == 4


def test_a_key_is_offered_with_its_certificates_and_then_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if shutil.which("ssh-keygen") is None:
        pytest.skip("ssh-keygen is not installed")
    monkeypatch.setenv("HOME", str(tmp_path))

    def keygen(*words: str) -> None:
        subprocess.run(
            ["ssh-keygen", "-q", *words], cwd=tmp_path, check=True, stdin=subprocess.DEVNULL
        )

    for name, kind in [("ca", "ed25519"), ("id", "ecdsa"), ("other", "ecdsa")]:
        keygen("-t", kind, "-N", "", "-f", name)
    for name in ("id", "other"):
        keygen("-s", "ca", "-I", name, "-n", "ann", f"{name}.pub")
    (tmp_path / "elsewhere").write_bytes((tmp_path / "id-cert.pub").read_bytes())
    (tmp_path / "config").write_text(
        f"IdentityFile {tmp_path}/id\nIdentityAgent none\n"
        f"CertificateFile {tmp_path}/elsewhere\nCertificateFile {tmp_path}/other-cert.pub\n"
    )
    to = SshConfig(str(tmp_path / "config")).target(Host(name="ws1"))
    with contextlib.ExitStack() as stack:
        keys = [(label, load()) for label, load in ssh_login._keys(to, stack)]
    file = f"{tmp_path}/id"
    assert [label for label, _ in keys] == [
        f"{file} with {tmp_path}/elsewhere", f"{file} with {file}-cert.pub", file,
    ]  # fmt: skip
    assert [key.public_blob is not None for _, key in keys] == [True, True, False]


def test_only_listed_keys_of_an_agent_are_offered_when_the_configuration_requires_it(
    lab: Lab,
) -> None:
    with agent_with_the_key(lab):
        lab.more += "\nIdentitiesOnly yes"
        (lab.folder / "id.pub").write_text(f"{make_key().get_name()} {make_key().get_base64()}\n")
        assert "is encrypted" in refused(lab.door())
        (lab.folder / "id.pub").write_text(f"{lab.key.get_name()} {lab.key.get_base64()}\n")
        lab.door().connect()


def test_an_agent_that_does_not_answer_is_left_out(lab: Lab) -> None:
    lab.more = f"IdentityAgent {lab.folder}/nowhere"
    lab.door().connect()


def test_a_name_without_an_address_is_refused(lab: Lab) -> None:
    text = refused(lab.door(address="no-such-host.invalid"))
    assert "there is no host with the name 'no-such-host.invalid'" in text


def test_a_name_server_that_does_not_answer_is_given_up_in_time(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    released = threading.Event()

    def never(*_: object) -> list[object]:
        released.wait(20)
        return []

    door = lab.door(settings=QUICK)
    monkeypatch.setattr(socket, "getaddrinfo", never)
    began = time.monotonic()
    text = busy(door)
    released.set()
    assert "the name server does not answer" in text
    assert time.monotonic() - began < 5


def test_a_name_that_cannot_be_resolved_now_is_tried_again_later(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> list[object]:
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    door = lab.door()
    monkeypatch.setattr(socket, "getaddrinfo", fail)
    assert "the name server does not answer" in busy(door)


def test_a_port_where_nothing_listens_is_named(lab: Lab) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    assert f"nothing listens on port {port}" in busy(lab.door(port=port))


def test_a_host_that_drops_packets_is_given_up_in_time(lab: Lab) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as server:
        port = server.getsockname()[1]
        fillers = []
        for _ in range(4):  # a full backlog drops new connections
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", port))
            fillers.append(filler)
        began = time.monotonic()
        text = busy(lab.door(port=port, settings=QUICK))
        for filler in fillers:
            filler.close()
    assert "did not answer within 1 s" in text
    assert "firewall" in text
    assert time.monotonic() - began < 5


def test_a_silent_server_is_given_up_in_time(lab: Lab) -> None:
    released = threading.Event()
    lab.sshd.before = lambda _: released.wait(10) and False
    began = time.monotonic()
    text = busy(lab.door(settings=QUICK))
    released.set()
    assert "accepts connections and says nothing for" in text
    assert "port=" in text
    assert "MaxStartups" not in text
    assert time.monotonic() - began < 8


def test_a_server_that_sends_only_its_banner_is_given_up_in_time(lab: Lab) -> None:
    released = threading.Event()

    def greet(sock: socket.socket) -> bool:
        sock.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")
        return released.wait(15) and False

    lab.sshd.before = greet
    began = time.monotonic()
    text = busy(lab.door(settings=QUICK))
    released.set()
    assert "did not answer within 1 s" in text
    assert time.monotonic() - began < 6


def test_a_server_that_closes_at_login_is_tried_again_with_waits(lab: Lab) -> None:
    came: list[float] = []

    def close_twice(_: socket.socket) -> bool:
        came.append(time.monotonic())
        return len(came) > 2

    lab.sshd.before = close_twice
    lab.door().connect()
    assert len(came) == 3
    assert came[1] - came[0] > 0.25
    assert came[2] - came[1] > 0.5


@pytest.mark.parametrize("said", [b"Exceeded MaxStartups", b"Not allowed at this time"])
def test_an_sshd_with_too_many_logins_is_named(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, said: bytes
) -> None:
    monkeypatch.setattr("resilient_scoop.hosts.ssh_login.TRIES", 2)

    def refuse(sock: socket.socket) -> bool:
        sock.sendall(said + b"\r\n")
        return False

    lab.sshd.before = refuse
    text = busy(lab.door())
    assert f"closed the connection at login ({said.decode()})" in text
    assert "MaxStartups" in text


def test_an_sshd_that_closes_after_its_greeting_is_named(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("resilient_scoop.hosts.ssh_login.TRIES", 1)

    def greet(sock: socket.socket) -> bool:
        sock.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")
        return False

    lab.sshd.before = greet
    assert "closed the connection at login;" in busy(lab.door())


def test_a_server_that_closes_without_a_word_may_be_no_sshd(lab: Lab) -> None:
    came: list[float] = []

    def close(_: socket.socket) -> bool:
        came.append(time.monotonic())
        return False

    lab.sshd.before = close
    with pytest.raises(SilentServerError) as caught:
        lab.door().connect()
    text = str(caught.value)
    assert "closes the connection without a word" in text
    assert "port=" in text
    assert "MaxStartups" in text
    assert len(came) == SILENT_TRIES < TRIES


OTHER_SERVERS = {
    "web": (b"HTTP/1.1 400 Bad Request\r\nServer: x\r\n\r\n", "'HTTP/1.1 400 Bad Request'"),
    "mail": (b"220 mail.lab ESMTP\r\n", "'220 mail.lab ESMTP'"),
    "tls": (b"\x15\x03\x01\x00\x02\x02\x46", "'??????F'"),
    "endless": (b"welcome\r\n" * 2000, "'welcome'"),
    "empty": (b"\n" * 2000, "is not sshd; give the right port"),
}


@pytest.mark.parametrize("stays", [False, True])
@pytest.mark.parametrize("name", OTHER_SERVERS)
def test_a_server_that_does_not_speak_ssh_is_named_with_its_words(
    lab: Lab, name: str, *, stays: bool
) -> None:
    said, shown = OTHER_SERVERS[name]
    released = threading.Event()

    def answer(sock: socket.socket) -> bool:
        with contextlib.suppress(ConnectionError):
            sock.sendall(said)
        if stays:
            released.wait(15)
        return False

    lab.sshd.before = answer
    text = refused(lab.door(settings=QUICK))
    released.set()
    assert "is not sshd" in text
    assert shown in text
    assert "MaxStartups" not in text


def test_an_account_without_commands_is_named(lab: Lab) -> None:
    lab.sshd.runs_commands = False
    with pytest.raises(PlaceRefusedError, match="accepts the login and runs no command"):
        lab.door().run("true")


def test_at_most_eight_logins_happen_at_once(lab: Lab) -> None:
    lock = threading.Lock()
    now, most = 0, 0

    def count(_: socket.socket) -> bool:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        time.sleep(0.2)
        with lock:
            now -= 1
        return True

    lab.sshd.before = count
    doors = [lab.door() for _ in range(20)]
    with ThreadPoolExecutor(len(doors)) as pool:
        list(pool.map(SshDoor.connect, doors))
    assert lab.sshd.logins == 20
    assert most <= 8 == LOGINS_MAX


def test_closing_a_connection_ends_its_login_after_the_present_step(lab: Lab) -> None:
    came = threading.Event()
    released = threading.Event()
    tries = []

    def wait(_: socket.socket) -> bool:
        tries.append(1)
        came.set()
        released.wait(10)
        return False

    lab.sshd.before = wait
    door = lab.door()
    with ThreadPoolExecutor(1) as pool:
        login = pool.submit(door.connect)
        assert came.wait(10)
        began = time.monotonic()
        door.close()
        assert time.monotonic() - began < 5
        released.set()
        with pytest.raises(PlaceBusyError, match="was closed here"):
            login.result(10)
    assert len(tries) == 1


def test_a_jump_host_is_used_and_its_key_is_checked(lab: Lab) -> None:
    (lab.folder / "gate").mkdir()
    gate = Lab(lab.folder / "gate")
    try:
        lab.known.write_text(lab.sshd.known_line + gate.sshd.known_line)
        gate.sshd.user_keys.append(lab.key)
        lab.more = (
            f"Host ws1\nProxyJump ann@gate:{gate.sshd.port}\nHost gate\nHostName 127.0.0.1\nHost *"
        )
        door = lab.door()
        assert door.run("echo through").lines == ["through"]
        assert gate.sshd.logins == 1
        assert door.route() is None

        lab.known.write_text(lab.sshd.known_line)
        with pytest.raises(PlaceRefusedError, match=r"gate: the host key of .* is not known"):
            lab.door().connect()
    finally:
        gate.close()


def test_a_jump_host_that_cannot_connect_is_named(lab: Lab) -> None:
    lab.more = (
        f"Host ws1\nProxyJump ann@gate:{lab.sshd.port}\nHost gate\nHostName 127.0.0.1\nHost *"
    )
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    text = busy(lab.door(port=port))
    assert (
        f"the jump host ann@gate:{lab.sshd.port} does not connect to 127.0.0.1 port {port}" in text
    )


CONNECT = (
    "import socket,sys,threading,os;s=socket.create_connection((sys.argv[1],int(sys.argv[2])));"
    "threading.Thread(target=lambda:[s.sendall(d) for d in iter(lambda:os.read(0,9999),b'')],daemon=True)"
    ".start();[os.write(1,d) for d in iter(lambda:s.recv(9999),b'')]"
)


def test_a_proxy_command_is_used(lab: Lab) -> None:
    (lab.folder / "connect.py").write_text(CONNECT)
    lab.more = f"ProxyCommand python3 {lab.folder}/connect.py %h %p"
    door = lab.door()
    assert door.run("echo through").lines == ["through"]
    assert door.route() is None


def test_a_proxy_command_that_fails_is_named(lab: Lab) -> None:
    lab.more = "ProxyCommand sh -c 'echo no such gate >&2; exit 5'"
    text = busy(lab.door())
    assert "ProxyCommand does not connect" in text
    assert "it ended with exit status 5 (no such gate)" in text
    lab.more = "ProxyCommand nosuchprogram %h"
    assert "it ended with exit status 127 (" in busy(lab.door())
