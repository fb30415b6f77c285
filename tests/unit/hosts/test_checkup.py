"""The checks of a host: the findings, and what the user should change."""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from resilient_scoop._version import __version__
from resilient_scoop.hosts import probe
from resilient_scoop.hosts.checkup import (
    Checkup,
    CheckupReport,
    Level,
    Listener,
    ThisMachine,
    _shortages,
)
from resilient_scoop.hosts.hostfile import Host
from resilient_scoop.hosts.remote_command import RemoteSettings
from resilient_scoop.hosts.ssh import SshDoor
from resilient_scoop.hosts.ssh_login import LoginSettings
from tests.unit.hosts.test_ssh_login import Lab

PYTHON = ".".join(map(str, sys.version_info[:3]))


def wall(ahead_s: float = 0) -> float:
    """Return the time of a clock that may be wrong."""
    return time.time() + ahead_s  # noqa: TID251 - clocks of two machines are compared


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    monkeypatch.setenv("HOME", str(tmp_path))
    lab = Lab(tmp_path)
    lab.sshd.environment["PYTHONPATH"] = os.environ.get("PYTHONPATH", "")
    yield lab
    lab.close()


def look(
    lab: Lab, here: ThisMachine | None = None, *, user: str = "ann", python: str = sys.executable,
    address: str = "127.0.0.1",
    clock: Callable[[], float] = wall,
) -> CheckupReport:  # fmt: skip
    host = Host("ws1", address=address, user=user, port=lab.sshd.port)
    door = SshDoor(host, lab.config(), LoginSettings(connect_s=5))
    settings = RemoteSettings(python=python)
    with Listener() as listener:
        clocks = (time.monotonic, clock)
        return Checkup(host, door, settings, here or ThisMachine({}), listener, clocks).run()


def texts(report: CheckupReport, level: Level) -> str:
    return "\n".join(finding.text for finding in report.findings if finding.level is level)


def python_that(lab: Lab, **claims: str | None) -> str:
    """Write a Python that reports wrong facts about itself, and runs programs like this one."""
    path = lab.folder / "python"
    found = {"path": str(path), "python": PYTHON, "rscoop": __version__}
    text = msgspec.json.encode(found | claims).decode()
    path.write_text(
        f"""#!/bin/sh\n[ "$1" = -c ] && exec printf '\\nrscoop-python: %s\\n' '{text}'\n"""
        f"""exec {sys.executable} "$@"\n"""
    )
    path.chmod(0o755)
    return str(path)


def test_a_host_without_problems_is_usable_and_its_figures_are_known(lab: Lab) -> None:
    report = look(lab)
    assert report.is_usable
    assert texts(report, Level.PROBLEM) == ""
    assert report.addresses == ["127.0.0.1"]
    assert report.route == "127.0.0.1"
    assert report.python == PYTHON
    assert report.rscoop == __version__
    assert report.cores == len(os.sched_getaffinity(0))
    assert report.memory_bytes > 0
    assert report.home_free_bytes > 0
    assert report.clock_s == 0
    assert report.login_s is not None
    assert report.packages == {}


def test_a_login_that_fails_is_reported_as_the_problem(lab: Lab) -> None:
    report = look(lab, user="eve")
    assert not report.is_usable
    assert texts(report, Level.PROBLEM).startswith("eve@127.0.0.1 port")
    assert report.python == ""


def test_a_python_without_the_package_is_a_problem_and_the_checks_continue(lab: Lab) -> None:
    report = look(lab, python=python_that(lab, rscoop=None))
    assert not report.is_usable
    assert f"Install resilient-scoop {__version__}" in texts(report, Level.PROBLEM)
    assert report.cores > 0


def test_a_missing_python_ends_the_checks(lab: Lab) -> None:
    report = look(lab, python="/nowhere/python")
    assert "/nowhere/python is not there" in texts(report, Level.PROBLEM)
    assert report.cores == 0


def test_another_minor_version_of_python_is_a_problem(lab: Lab) -> None:
    report = look(lab, python=python_that(lab, python="3.99.1"))
    assert "Python 3.99.1 there, 3." in texts(report, Level.PROBLEM)
    assert not report.is_usable


def test_another_version_of_the_package_is_a_problem(lab: Lab) -> None:
    report = look(lab, python=python_that(lab, rscoop="0.0.7"))
    assert f"resilient_scoop 0.0.7 there, {__version__} here" in texts(report, Level.PROBLEM)


def test_another_version_of_a_library_is_a_warning(lab: Lab) -> None:
    report = look(lab, ThisMachine({"msgspec": "0.0.1", "no-such-package": "1"}))
    assert report.is_usable
    assert "msgspec" in texts(report, Level.WARNING)
    assert "0.0.1 here" in texts(report, Level.WARNING)
    assert list(report.packages) == ["msgspec"]


def test_a_wrong_clock_is_a_warning(lab: Lab) -> None:
    report = look(lab, clock=lambda: wall(100))
    assert "its clock is 100 s behind" in texts(report, Level.WARNING)
    assert report.is_usable
    assert "its clock is 100 s ahead" in texts(look(lab, clock=lambda: wall(-100)), Level.WARNING)


def test_a_tunnel_is_proposed_for_a_host_that_cannot_reach_us(lab: Lab) -> None:
    report = look(lab, ThisMachine({}, external_address="no-such-host.invalid"))
    assert report.is_usable
    assert report.route == "tunnel"
    assert "cannot reach this machine at no-such-host.invalid" in texts(report, Level.WARNING)
    assert "--tunnel" in texts(report, Level.WARNING)


def test_a_host_without_route_and_tunnel_is_unusable(lab: Lab) -> None:
    lab.sshd.lets_forward = False
    report = look(lab, ThisMachine({}, external_address="no-such-host.invalid"))
    assert not report.is_usable
    assert "AllowTcpForwarding" in texts(report, Level.PROBLEM)
    assert report.route == ""


def test_a_tunnel_that_leads_elsewhere_is_a_problem(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        monkeypatch.setattr(lab.sshd, "listen", lambda *_: port)
        monkeypatch.setattr(probe, "CONNECT_S", 0.5)
        report = look(lab, ThisMachine({}, is_tunneled=True))
    assert "a tunnel through SSH does not work" in texts(report, Level.PROBLEM)
    assert not report.is_usable


def test_a_name_of_this_machine_is_a_warning(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    real = socket.getaddrinfo

    def resolve(name: str, *more: Any, **options: Any) -> Any:
        return real("127.0.0.1" if name == "ws1.lab" else name, *more, **options)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    report = look(lab, address="ws1.lab")
    assert "its name leads to 127.0.0.1, which is this machine itself" in texts(
        report, Level.WARNING
    )


def test_only_the_tunnel_is_tested_when_the_user_requests_one(lab: Lab) -> None:
    report = look(lab, ThisMachine({}, is_tunneled=True))
    assert report.route == "tunnel"
    assert report.is_usable


def test_a_home_folder_without_write_permission_is_a_warning(lab: Lab) -> None:
    lab.sshd.environment["HOME"] = "/proc"
    report = look(lab)
    assert "its home folder /proc cannot be written to" in texts(report, Level.WARNING)
    assert report.is_usable


def test_a_host_without_a_folder_for_the_files_of_a_run_is_a_problem(lab: Lab) -> None:
    lab.sshd.environment["RSCOOP_HOST_DIR"] = "/proc/files"
    report = look(lab)
    assert "it has no folder for the files of a run (/proc/files: " in texts(report, Level.PROBLEM)
    assert not report.is_usable


def test_the_folder_for_the_files_of_a_run_is_that_of_the_agent(lab: Lab, tmp_path: Path) -> None:
    lab.sshd.environment["TMPDIR"] = str(tmp_path / "not" / "made")
    answer = answer_of(lab)
    assert answer.kept == str(tmp_path / "not" / "made")
    assert answer.kept_free_bytes > 0
    lab.sshd.environment["TMPDIR"] = "/proc"
    assert answer_of(lab).kept == "/var/tmp"


def answer_of(lab: Lab, **changed: object) -> probe.ProbeAnswer:
    found = SshDoor(
        Host("ws1", address="127.0.0.1", user="ann", port=lab.sshd.port),
        lab.config(),
        LoginSettings(),
    )
    try:
        done = found.run(f"exec {sys.executable} -", probe.program(probe.ProbeTask()))
    finally:
        found.close()
    answer = probe.read_answer(done.lines)
    assert answer is not None
    return msgspec.structs.replace(answer, **changed)


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"home_free_bytes": 7_000_000}, "7.0 MB free in"),
        ({"tmp_free_bytes": 0}, "0 B free in"),
        ({"kept": "/full", "kept_free_bytes": 9}, "9 B free in /full"),
        ({"tmp_why": "PermissionError"}, "set TMPDIR"),
        ({"tmp_exec_why": "PermissionError: 13"}, "mounted noexec"),
        ({"files_max": 64}, "may open 64 files only"),
        ({"processes_max": 80}, "80 processes only; 8 workers"),
    ],
)
def test_a_shortage_is_named(lab: Lab, changed: dict[str, object], text: str) -> None:
    plenty = {
        "home_free_bytes": 1 << 40,
        "tmp_free_bytes": 1 << 40,
        "kept_free_bytes": 1 << 40,
        "files_max": -1,
        "processes_max": -1,
    }
    assert list(_shortages(answer_of(lab, **plenty), 8)) == []
    [found] = _shortages(answer_of(lab, **(plenty | changed)), 8)
    assert text in found


def test_an_answer_is_found_among_noise() -> None:
    assert probe.read_answer(["Welcome", "rscoop-probe: nonsense", ""]) is None
