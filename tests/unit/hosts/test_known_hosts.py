"""Files of known host keys."""

from __future__ import annotations

import base64
import hmac
from pathlib import Path

import pytest

from resilient_scoop.hosts.known_hosts import Judged, KnownHosts, Verdict, fingerprint, learn

KEY, OTHER = b"\x00\x00\x00\x0bssh-ed25519" + b"k" * 32, b"other key"
KIND = "ssh-ed25519"


def line(names: str, key: bytes = KEY, kind: str = KIND, marker: str = "") -> str:
    return f"{marker} {names} {kind} {base64.b64encode(key).decode()} ann@ws1\n".lstrip()


def hashed(name: str) -> str:
    salt = b"s" * 20
    digest = hmac.digest(salt, name.encode(), "sha1")
    return f"|1|{base64.b64encode(salt).decode()}|{base64.b64encode(digest).decode()}"


def judge(folder: Path, text: str, name: str = "ws1", kind: str = KIND, key: bytes = KEY) -> Judged:
    (folder / "known").write_text(text)
    return KnownHosts([str(folder / "known"), str(folder / "missing")]).judge(name, kind, key)


@pytest.mark.parametrize(
    ("names", "name"),
    [
        ("ws1", "ws1"),
        ("WS1", "ws1"),
        ("ws0,ws1,10.0.0.1", "ws1"),
        ("*.lab,!ws9.lab", "ws1.lab"),
        ("ws?", "ws1"),
        ("[ws1]:2222", "[ws1]:2222"),
        ("[fe80::1]:2222", "[fe80::1]:2222"),
        (hashed("ws1"), "ws1"),
        (hashed("[ws1]:2222"), "[ws1]:2222"),
    ],
)
def test_a_key_in_a_file_is_known(tmp_path: Path, names: str, name: str) -> None:
    assert judge(tmp_path, "# comment\n\n" + line(names), name).verdict is Verdict.KNOWN


@pytest.mark.parametrize(
    ("names", "name"),
    [
        ("ws1", "ws10"),
        ("*.lab,!ws9.lab", "ws9.lab"),
        ("[ws1]:2222", "ws1"),
        ("ws1", "[ws1]:2222"),
        ("[ws1]:2222", "w"),
        (hashed("ws2"), "ws1"),
        ("|1|broken", "ws1"),
        ("|1|###|###", "ws1"),
    ],
)
def test_a_host_that_no_line_names_is_unknown(tmp_path: Path, names: str, name: str) -> None:
    assert judge(tmp_path, line(names), name).verdict is Verdict.UNKNOWN


def test_another_key_of_a_known_host_is_a_change_reported_with_its_line(tmp_path: Path) -> None:
    judged = judge(tmp_path, "#\n" + line("ws1", OTHER))
    assert judged == Judged(
        Verdict.CHANGED, f"{tmp_path}/known line 2", f"{KIND} {fingerprint(OTHER)}"
    )


def test_a_key_of_another_type_of_a_known_host_is_a_change(tmp_path: Path) -> None:
    assert judge(tmp_path, line("ws1", OTHER, "ssh-rsa")).verdict is Verdict.CHANGED


def test_one_of_several_keys_is_enough(tmp_path: Path) -> None:
    assert judge(tmp_path, line("ws1", OTHER, "ssh-rsa") + line("ws1")).verdict is Verdict.KNOWN


def test_a_revoked_key_is_never_known(tmp_path: Path) -> None:
    text = line("ws1") + line("*", marker="@revoked")
    assert judge(tmp_path, text).verdict is Verdict.REVOKED
    assert (
        judge(tmp_path, line("ws1") + line("*", OTHER, marker="@revoked")).verdict is Verdict.KNOWN
    )


def test_an_authority_is_named_and_its_key_is_not_the_host_s(tmp_path: Path) -> None:
    (tmp_path / "known").write_text(line("*.lab", marker="@cert-authority"))
    known = KnownHosts([str(tmp_path / "known")])
    assert known.authority("ws1.lab") == f"{tmp_path}/known line 1"
    assert known.authority("ws1") == ""
    assert known.judge("ws1.lab", KIND, KEY).verdict is Verdict.UNKNOWN
    assert known.kinds("ws1.lab") == []


def test_lines_that_cannot_be_parsed_are_skipped(tmp_path: Path) -> None:
    text = "ws1\nws1 ssh-ed25519\nws1 ssh-ed25519 ###\n@cert-authority " + line("ws1", OTHER)
    assert judge(tmp_path, text + line("ws1")).verdict is Verdict.KNOWN
    assert judge(tmp_path, text).verdict is Verdict.UNKNOWN


def test_a_learned_key_is_known_and_other_lines_are_unchanged(tmp_path: Path) -> None:
    file = tmp_path / "new" / "known"
    learn(str(file), "ws1", KIND, KEY)
    file.write_text(file.read_text().rstrip("\n"))  # an editor has left no end of line
    learn(str(file), "[ws2]:2222", KIND, OTHER)
    known = KnownHosts([str(file)])
    assert known.judge("ws1", KIND, KEY).verdict is Verdict.KNOWN
    assert known.judge("[ws2]:2222", KIND, OTHER).verdict is Verdict.KNOWN
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o777 == 0o700


def test_the_types_of_known_keys_are_listed(tmp_path: Path) -> None:
    (tmp_path / "known").write_text(
        line("ws1") + line("ws2", kind="ssh-rsa") + line("ws1", kind="x")
    )
    assert KnownHosts([str(tmp_path / "known")]).kinds("ws1") == [KIND, "x"]
