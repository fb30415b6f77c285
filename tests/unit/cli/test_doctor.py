"""`rscoop doctor`: its output and its exit codes."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from resilient_scoop.cli.main import cli


def doctor(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = cli.main(["doctor", *words], standalone_mode=False)
    done = capsys.readouterr()
    return code or 0, done.out, done.err


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def closed_port() -> Iterator[int]:
    with socket.socket() as taken:  # bound, so that no other test gets it, and not listening
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


def test_without_hosts_this_machine_is_checked(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = doctor(capsys)
    assert code == 0
    assert out.splitlines()[0].split()[:3] == ["HOST", "STATE", "LOGIN"]
    assert out.splitlines()[1].split()[0] == "localhost"


def test_this_host_in_a_hostfile_is_checked_without_ssh(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "hosts.txt").write_text("localhost slots=2\n")
    code, out, _ = doctor(capsys, "--hostfile", str(tmp_path / "hosts.txt"), "--json")
    assert code == 0
    assert json.loads(out)["hosts"][0]["cores"] > 0


def test_a_host_that_cannot_be_used_is_named_with_the_cure_and_ends_with_75(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, closed_port: int
) -> None:
    (tmp_path / "hosts.txt").write_text(f"alice address=127.0.0.1 port={closed_port}\n")
    code, out, _ = doctor(capsys, "--hostfile", str(tmp_path / "hosts.txt"))
    assert code == 75
    assert "unusable" in out
    assert f"alice: nothing listens on port {closed_port} of 127.0.0.1; start sshd there" in out
    assert "1 host of 1 cannot be used" in out


def test_the_json_output_has_findings_of_each_host(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, closed_port: int
) -> None:
    (tmp_path / "hosts.txt").write_text(f"alice address=127.0.0.1 port={closed_port}\n")
    code, out, _ = doctor(capsys, "--hostfile", str(tmp_path / "hosts.txt"), "--json")
    assert code == 75
    [host] = json.loads(out)["hosts"]
    assert (host["name"], host["is_usable"]) == ("alice", False)
    assert host["findings"][0]["level"] == "problem"


def test_two_names_of_one_host_are_reported(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, closed_port: int
) -> None:
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh" / "config").write_text(
        f"Host alice bob\nHostName 127.0.0.1\nPort {closed_port}\n"
    )
    _, out, _ = doctor(capsys, "--host", "alice,bob", "--json")
    [warning] = json.loads(out)["warnings"]
    assert "alice and bob are the same host" in warning


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--host", "alice:many"], "workers is 'many'"),
        (["--hostfile", "nowhere.txt"], "nowhere.txt cannot be read"),
        (["--hostfile", "empty.txt"], "empty.txt names no host"),
        (["--host", "alice", "-F", "nowhere"], "no SSH configuration nowhere"),
    ],
)
def test_wrong_arguments_exit_with_2(
    capsys: pytest.CaptureFixture[str], words: list[str], text: str, monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.txt").write_text("# none yet\n")
    code, _, err = doctor(capsys, *words)
    assert code == 2
    assert text in err
