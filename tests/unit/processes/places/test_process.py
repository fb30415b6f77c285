"""The places as a process: real programs on this host instead of SSH, a launcher that ends, a kill."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from resilient_scoop.hosts.hostfile import Host
from resilient_scoop.hosts.make import DoorKind, SshOptions
from resilient_scoop.hosts.remote_command import RemoteSettings
from resilient_scoop.processes.places.reports import PlacesReport
from resilient_scoop.processes.places.settings import PlacesSettings
from tests import stand_in_host

WITHIN_S = 20.0
PROGRAM = """
import sys, time, msgspec
from resilient_scoop.hosts.make import SshOptions, make_place
from resilient_scoop.processes.places.main import serve
from resilient_scoop.processes.places.settings import PlacesSettings
settings = msgspec.json.decode(sys.argv[1], type=PlacesSettings)
options = msgspec.json.decode(sys.argv[2], type=SshOptions)
sys.exit(serve(
    settings,
    lambda host: make_place(host, options, settings.run_key),
    lambda place, share: time.sleep(%s) or b'{"host": "%%s"}' %% share.host.name.encode(),
))
"""


class Launcher:
    """Starts the process, and reads its reports."""

    def __init__(self, folder: Path) -> None:
        self.run = folder / "run"
        self.run.mkdir()
        self.host = folder / "host"
        python = stand_in_host.write_python(self.host)
        options = SshOptions(kind=DoorKind.LOCAL, remote=RemoteSettings(python=str(python)))
        hosts = [Host("ws1", workers=2)]
        settings = PlacesSettings(run_dir=str(self.run), run_id="r1", run_key="r1", hosts=hosts)
        self.arguments = [msgspec.json.encode(each).decode() for each in (settings, options)]
        self.reports: list[PlacesReport] = []

    def start(self, login_s: float = 0.0) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM % login_s, *self.arguments],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.stdin, self.stdout = self.process.stdin, self.process.stdout
        self.reports.clear()
        self.rest = b""

    def say(self, **command: Any) -> None:
        self.stdin.write(json.dumps(command).encode() + b"\n")
        self.stdin.flush()

    def wait(self, what: Callable[[], bool]) -> None:
        until = time.monotonic() + WITHIN_S
        while not what():
            assert time.monotonic() < until, self.reports
            if select.select([self.stdout], [], [], 0.05)[0]:
                *lines, self.rest = (self.rest + os.read(self.stdout.fileno(), 65536)).split(b"\n")
                self.reports += [msgspec.json.decode(line, type=PlacesReport) for line in lines]

    def state(self) -> str:
        states = [each.hosts[0].state for each in self.reports if each.hosts]
        return states[-1] if states else ""

    def tag(self) -> str:
        """Return the tag that was written last."""
        return str(json.loads((self.run / "units").read_text().splitlines()[-1])["tag"])

    def tags(self) -> set[str]:
        lines = (self.run / "units").read_text().splitlines()
        return {json.loads(line)["tag"] for line in lines} - {""}

    def agents(self) -> list[int]:
        return [
            pid
            for file in self.host.glob("*.agents")
            for pid in stand_in_host.alive(self.host, file.stem)
        ]

    def begin(self) -> None:
        """Start, and wait until there is an agent."""
        self.start()
        self.wait(lambda: len(self.agents()) == 1)

    def close(self) -> None:
        for stream in (self.stdin, self.stdout):
            stream.close()
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        stand_in_host.end_all(self.host)


@pytest.fixture
def launcher(tmp_path: Path) -> Iterator[Launcher]:
    found = Launcher(tmp_path)
    yield found
    found.close()


def test_an_agent_is_started_with_its_ticket_and_stopped(launcher: Launcher) -> None:
    launcher.begin()
    tag = launcher.tag()
    launcher.say(**{"agent": "ws1", "is": "came"})
    launcher.wait(lambda: launcher.state() == "running")
    assert stand_in_host.tickets(launcher.host, tag) == ['{"host": "ws1"}']

    launcher.say(stop=3.0)
    assert launcher.process.wait(WITHIN_S) == 0
    assert launcher.agents() == []


def test_the_process_ends_with_its_launcher_and_the_agent_continues(launcher: Launcher) -> None:
    launcher.begin()
    began = time.monotonic()
    launcher.stdin.close()

    assert launcher.process.wait(WITHIN_S) == 0
    assert time.monotonic() - began < 3.0
    assert len(launcher.agents()) == 1


@pytest.mark.parametrize("is_stop", [False, True])
def test_a_login_that_hangs_does_not_delay_the_end(launcher: Launcher, *, is_stop: bool) -> None:
    launcher.start(login_s=60.0)
    launcher.wait(lambda: launcher.state() == "starting")
    began = time.monotonic()
    if is_stop:
        launcher.say(stop=20.0)
    else:
        launcher.stdin.close()

    assert launcher.process.wait(WITHIN_S) == 0
    assert time.monotonic() - began < 3.0


def test_the_successor_of_a_killed_process_finds_the_agent(launcher: Launcher) -> None:
    # Given places that are killed when an agent runs
    launcher.begin()
    (agent,) = launcher.agents()
    launcher.process.send_signal(signal.SIGKILL)
    launcher.process.wait()
    launcher.stdin.close()
    launcher.stdout.close()

    # When the next places start
    launcher.start()
    launcher.wait(lambda: launcher.state() == "starting")

    # Then the agent gets another ticket, under its tag, and is the only one
    (tag,) = launcher.tags()
    launcher.wait(lambda: len(stand_in_host.tickets(launcher.host, tag)) == 2)
    assert launcher.agents() == [agent]
    launcher.say(stop=3.0)
    assert launcher.process.wait(WITHIN_S) == 0
    assert launcher.agents() == []


@pytest.mark.parametrize("after_s", [0.0, 0.05, 0.1, 0.15, 0.2, 0.3])
def test_a_kill_at_any_moment_of_a_start_leaves_one_agent(
    launcher: Launcher, after_s: float
) -> None:
    launcher.start()
    launcher.wait(lambda: launcher.state() != "")
    time.sleep(after_s)  # this waits for nothing: the kill hits another step each time
    launcher.process.kill()
    launcher.process.wait()
    launcher.stdin.close()
    launcher.stdout.close()

    launcher.start()
    launcher.wait(lambda: len(launcher.agents()) == 1 and launcher.state() == "starting")
    launcher.say(**{"agent": "ws1", "is": "came"})
    launcher.wait(lambda: launcher.state() == "running")
    assert len(launcher.agents()) == 1


def test_an_agent_that_was_killed_is_replaced(launcher: Launcher) -> None:
    launcher.begin()
    launcher.say(**{"agent": "ws1", "is": "came"})
    launcher.wait(lambda: launcher.state() == "running")
    (first,) = launcher.agents()

    stat = Path(f"/proc/{first}/stat").read_text().rpartition(")")[2].split()
    for pid in (first, int(stat[1])):  # and the program with which its place communicates
        os.kill(pid, signal.SIGKILL)
    launcher.say(**{"agent": "ws1", "is": "lost"})
    launcher.wait(lambda: launcher.agents() not in ([], [first]))
    assert len(launcher.agents()) == 1


def test_a_process_ends_if_its_launcher_ends_before_the_first_command(launcher: Launcher) -> None:
    launcher.start()
    launcher.stdin.close()
    assert launcher.process.wait(WITHIN_S) == 0
