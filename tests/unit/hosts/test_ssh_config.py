"""OpenSSH's configuration."""

from __future__ import annotations

import getpass
import importlib.util
from pathlib import Path

import pytest

from resilient_scoop.errors import UsageError
from resilient_scoop.hosts.hostfile import Host
from resilient_scoop.hosts.ssh_config import SshConfig, Target, same_hosts


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    (tmp_path / ".ssh").mkdir()
    return tmp_path


def target(home: Path, text: str, host: Host | None = None) -> Target:
    (home / "config").write_text(text)
    return SshConfig(str(home / "config")).target(host or Host(name="alice"))


def test_without_a_configuration_a_host_is_its_name(home: Path) -> None:
    found = SshConfig().target(Host(name="Alice"))
    assert (found.hostname, found.port, found.user) == ("Alice", 22, getpass.getuser())
    assert found.key_name == "alice"
    assert found.identity_files == tuple(
        f"{home}/.ssh/{name}" for name in ("id_ed25519", "id_ecdsa", "id_rsa")
    )
    assert found.known_hosts == (
        f"{home}/.ssh/known_hosts", f"{home}/.ssh/known_hosts2",
        "/etc/ssh/ssh_known_hosts", "/etc/ssh/ssh_known_hosts2",
    )  # fmt: skip
    assert not found.jumps
    assert not found.accept_new


def test_an_alias_gives_hostname_user_port_and_keys(home: Path) -> None:
    text = """
Host alice
    HostName ws1.lab
    User ann
    Port 2222
    IdentityFile ~/.ssh/lab
    IdentityFile %d/.ssh/lab-%r-%h
    IdentitiesOnly yes
    IdentityAgent /run/agent-%r
    UserKnownHostsFile ~/.ssh/lab_hosts %d/more
    GlobalKnownHostsFile none
    ProxyJump gate,ann@[fe80::1]:2200
Host *
    User guest
"""
    found = target(home, text)
    assert (found.hostname, found.port, found.user) == ("ws1.lab", 2222, "ann")
    assert found.who == "ann@ws1.lab port 2222"
    assert found.key_name == "[ws1.lab]:2222"
    assert found.identity_files == (f"{home}/.ssh/lab", f"{home}/.ssh/lab-ann-ws1.lab")
    assert found.identities_only
    assert found.agent == "/run/agent-ann"
    assert found.known_hosts == (f"{home}/.ssh/lab_hosts", f"{home}/more")
    assert found.jumps == ("gate", "ann@[fe80::1]:2200")


def test_the_hostfile_overrides_the_configuration(home: Path) -> None:
    host = Host(name="alice", address="10.0.0.7", user="eve", port=2200)
    text = "Host alice\nHostName x\nUser ann\nPort 1\nProxyCommand nc %h %p %r\n"
    found = target(home, text, host)
    assert (found.hostname, found.port, found.user) == ("10.0.0.7", 2200, "eve")
    assert found.proxy_command == "nc 10.0.0.7 2200 eve"


def test_a_host_key_alias_names_the_key(home: Path) -> None:
    assert target(home, "Port 2222\nHostKeyAlias Cluster").key_name == "cluster"


@pytest.mark.parametrize("word", ["ProxyJump none", "ProxyCommand none"])
def test_the_proxy_none_means_no_proxy(home: Path, word: str) -> None:
    found = target(home, word)
    assert (found.jumps, found.proxy_command) == ((), "")


@pytest.mark.parametrize("word", ["accept-new", "yes", "no", "off", "ask"])
def test_keys_are_learned_only_with_accept_new(home: Path, word: str) -> None:
    found = target(home, f"StrictHostKeyChecking {word}")
    assert found.accept_new is (word == "accept-new")


def test_the_agent_is_that_of_the_environment_unless_the_configuration_names_one(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSH_AUTH_SOCK", "/run/mine")
    monkeypatch.setenv("OTHER", "/run/other")
    assert target(home, "").agent == "/run/mine"
    assert target(home, "IdentityAgent SSH_AUTH_SOCK").agent == "/run/mine"
    assert target(home, "IdentityAgent $OTHER").agent == "/run/other"
    assert target(home, "IdentityAgent none").agent == ""


def test_a_comment_may_follow_a_value_as_in_openssh(home: Path) -> None:
    text = 'Host alice # the first\n User ann # her\n Port=2200 #x\nIdentityFile "~/a # b" # c\n'
    found = target(home, text)
    assert (found.user, found.port) == ("ann", 2200)
    assert found.identity_files == (f"{home}/a # b",)
    assert target(home, "User a#b").user == "a#b"
    assert target(home, "ProxyCommand nc '# %h' # %p").proxy_command == "nc '# alice' # 22"


def test_of_jump_hosts_and_a_proxy_command_the_first_counts(home: Path) -> None:
    jump, command = "ProxyJump gate", "ProxyCommand nc %h"
    assert target(home, f"{jump}\n{command}").jumps == ("gate",)
    assert target(home, f"{jump}\n{command}").proxy_command == ""
    assert target(home, f"{command}\n{jump}").proxy_command == "nc alice"
    assert target(home, f"{command}\n{jump}").jumps == ()
    of_all = f"Host alice\n{jump}\nHost *\n{command}"
    assert target(home, of_all).jumps == ("gate",)
    assert target(home, f"Host alice\nProxyCommand none\nHost *\n{jump}").jumps == ()


def test_a_proxy_command_is_kept_but_for_its_tokens(home: Path) -> None:
    text = '"/opt/my nc" %n %h %p %r %%h "~"'
    assert target(home, f"HostName ws\nPort 7\nUser u\nProxyCommand {text}").proxy_command == (
        '"/opt/my nc" alice ws 7 u %h "~"'
    )


def test_names_of_files_may_have_spaces_and_variables(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KEYS", "/keys")
    known = 'UserKnownHostsFile "~/my hosts" ${KEYS}/h\nGlobalKnownHostsFile "/a b"\n'
    found = target(home, known + "IdentityFile ${KEYS}/k\nIdentityAgent ${KEYS}/agent")
    assert found.known_hosts == (f"{home}/my hosts", "/keys/h", "/a b")
    assert found.identity_files == ("/keys/k",)
    assert found.agent == "/keys/agent"


def test_certificates_are_listed_beside_keys(home: Path) -> None:
    text = 'CertificateFile ~/a\nIdentityFile k\nCertificateFile "%d/b c"\n'
    found = target(home, text)
    assert found.certificate_files == (f"{home}/a", f"{home}/b c")
    assert found.identity_files == ("k",)
    usual = target(home, "CertificateFile ~/a")
    assert usual.identity_files == target(home, "").identity_files


@pytest.mark.parametrize("word", ["tagged vpn", "localnetwork 10.0.0.0/8", "!version 9*"])
def test_a_condition_that_paramiko_takes_for_fulfilled_is_refused(home: Path, word: str) -> None:
    with pytest.raises(UsageError, match=r"does not understand `Match \w+`.*--ssh\s+system"):
        target(home, f"Match host alice {word}\nPort 1")


@pytest.mark.parametrize(
    ("block", "is_read"),
    [
        ("Host alice", True), ("Host a* !bob", True), ("Host bob", False), ("Match host bob", False),
        ("Match all", True), ("Match final", True), ("Match final all", True), ("Match user ann", False),
    ],
)  # fmt: skip
def test_an_included_file_holds_under_the_conditions_of_its_place(
    home: Path,
    block: str,
    is_read: bool,  # noqa: FBT001
) -> None:
    (home / "more").write_text("Host *\nPort 99\n")
    found = target(home, f"{block}\nInclude {home}/more\nHost *\nUser late")
    assert found.port == (99 if is_read else 22)
    assert found.user == "late"


def test_included_files_are_read_at_their_position(home: Path) -> None:
    (home / ".ssh" / "conf.d").mkdir()
    (home / ".ssh" / "conf.d" / "1").write_text("Host alice\nPort 2201\nUser first\n")
    (home / ".ssh" / "conf.d" / "2").write_text("Host alice\nPort 2202\nHostName ws2\n")
    text = 'Host alice\nInclude "conf.d/*" missing\nUser second\nHost *\nPort 1\n'
    found = target(home, text)
    assert (found.port, found.user, found.hostname) == (2201, "first", "ws2")
    assert target(home, text, Host(name="bob")).port == 1


def test_a_file_that_includes_itself_is_refused(home: Path) -> None:
    with pytest.raises(UsageError, match="includes itself"):
        target(home, f"Include {home}/config")


@pytest.mark.parametrize("text", ["Port many", "Host 'alice", "Nonsense", "AddressFamily inet7"])
def test_an_invalid_configuration_is_refused_with_its_name(home: Path, text: str) -> None:
    with pytest.raises(UsageError, match=r"alice: the SSH configuration .*/config cannot be used"):
        target(home, text)


@pytest.mark.skipif(importlib.util.find_spec("invoke") is not None, reason="paramiko can run it")
def test_a_configuration_that_runs_programs_needs_the_ssh_program(home: Path) -> None:
    with pytest.raises(UsageError, match="--ssh system"):
        target(home, 'Match exec "true"\nPort 2222\n')


def test_the_configuration_none_reads_no_file(home: Path) -> None:
    (home / ".ssh" / "config").write_text("Port 2222\n")
    assert SshConfig().target(Host("alice")).port == 2222
    assert SshConfig("none").target(Host("alice")).port == 22


def test_a_named_file_that_is_missing_is_refused() -> None:
    with pytest.raises(UsageError, match="there is no SSH configuration /nowhere"):
        SshConfig("/nowhere")


def test_a_jump_host_has_its_own_configuration(home: Path) -> None:
    (home / "config").write_text("Host gate\nHostName gate.lab\nPort 2200\nUser ann\n")
    config = SshConfig(str(home / "config"))
    assert config.jump("gate").who == "ann@gate.lab port 2200"
    assert config.jump("eve@gate:22").who == "eve@gate.lab"
    assert config.jump("eve@[fe80::1]:2201").who == "eve@fe80::1 port 2201"
    assert config.jump("ssh://eve@gate:24/").port == 24
    with pytest.raises(UsageError, match="is not a jump host"):
        config.jump("a:b:c")


def test_hosts_with_two_names_are_found_by_what_the_configuration_says_of_them(home: Path) -> None:
    (home / "config").write_text("Host ws1 one\nHostName 10.0.0.1\nUser ann\n")
    hosts = [Host(name="ws1"), Host(name="ws2"), Host(name="one", where="hosts.txt, line 3")]
    (text,) = same_hosts(hosts, str(home / "config"))
    assert "ws1 and one are the same host for SSH, ann@10.0.0.1 port 22" in text
    assert "hosts.txt, line 3" in text
