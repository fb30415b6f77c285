"""A place that a test controls, and the shell of the places in a thread, with pipes to the launcher."""

from __future__ import annotations

import os
import select
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from resilient_scoop.errors import PlaceError
from resilient_scoop.hosts.base import Seen, Unit, UnitState
from resilient_scoop.hosts.conversation import HearOver
from resilient_scoop.hosts.hostfile import Host
from resilient_scoop.hosts.make import ReachablePlace
from resilient_scoop.processes.places.calls import PlaceOfHost, Share
from resilient_scoop.processes.places.main import PlacesShell, shares
from resilient_scoop.processes.places.reports import PlacesReport
from resilient_scoop.processes.places.settings import PlacesSettings

WITHIN_S = 10.0


class FakePlace:
    """A place of one host; the test sets its answers."""

    def __init__(self, name: str) -> None:
        self.renewed: list[bytes] = []
        self.name = name
        self.units: dict[str, Unit] = {}  # alive, by tag
        self.state = UnitState.RUNNING
        self.why = self.log = ""
        self.error: PlaceError | None = None
        self.blocked: threading.Event | None = None
        self.calls: list[Any] = []
        self.tickets: list[bytes] = []
        self.count = 0
        self.unreachable: threading.Event | None = None  # how long a login blocks
        self.address: str | None = "10.0.0.1"

    def block(self) -> None:
        """Let calls block until `release`."""
        self.blocked = threading.Event()

    def release(self) -> None:
        assert self.blocked is not None
        self.blocked.set()

    def _call(self, *call: Any) -> None:
        self.calls.append(call)
        if self.blocked is not None:
            self.blocked.wait(WITHIN_S)
        if self.error is not None:
            raise self.error

    def start(self, n: int, ticket: bytes, *, tag: str) -> Sequence[Unit]:
        self._call("start", n, tag)
        self.tickets.append(ticket)
        if tag not in self.units:
            self.count += 1
            self.units[tag] = Unit(tag, f"{self.name}-{self.count}", self.name)
        return [self.units[tag]]

    def look(self, units: Sequence[Unit]) -> Mapping[Unit, Seen]:
        self._call("look")
        alive = set(self.units.values())
        ended = Seen(UnitState.GONE, self.why, self.log)
        return {u: Seen(self.state, self.why, self.log) if u in alive else ended for u in units}

    def stop(self, units: Sequence[Unit], *, grace_s: float) -> None:
        self._call("stop", grace_s)
        for unit in units:
            self.units.pop(unit.tag, None)

    def renew(self, ticket: bytes) -> None:
        self.renewed.append(ticket)

    def find(self, tag: str) -> Sequence[Unit]:
        self._call("find", tag)
        return [self.units[tag]] if tag in self.units else []

    def hear_over(self, hear: HearOver) -> None:
        self.says_over = hear

    def connect(self) -> None:
        if self.unreachable is not None:
            self.unreachable.wait(WITHIN_S)

    def route(self) -> str | None:
        return self.address

    def tunnel(self, port: int, address: str = "127.0.0.1") -> str:
        return f"{address}:{port + 10000}"

    def dry_run(self, n: int) -> str:
        return f"start {n} on {self.name}"

    def close(self) -> None:
        self.calls.append(("close",))

    def names(self) -> list[str]:
        return [call[0] for call in self.calls]


class Launcher:
    """The other side of the places: sends commands, and keeps the reports."""

    def __init__(self, run: Path, *names: str, **settings: Any) -> None:
        run.mkdir(exist_ok=True)
        hosts = [Host(name) for name in names]
        self.settings = PlacesSettings(
            run_dir=str(run), run_id="r", run_key="r", hosts=hosts, **settings
        )
        self.places = {name: FakePlace(name) for name in names}
        self.reports: list[PlacesReport] = []
        self.code: int | None = None

    def begin(self, *early: bytes) -> None:
        """Start the shell as a process would be started; `early` commands are sent before it begins."""
        theirs, self.commands = os.pipe()
        os.write(self.commands, b"".join(early))
        self.output, mine = os.pipe()
        self._rest = b""

        def make(share: Share) -> PlaceOfHost:
            return PlaceOfHost(self.places[share.host.name], share)

        hosts = {name: make(share) for name, share in shares(self.settings).items()}
        shell = PlacesShell(
            self.settings, hosts, self.make_ticket,
            stdin=theirs, stdout=mine,
        )  # fmt: skip

        def serve() -> None:
            self.code = shell.serve()
            os.close(mine)
            os.close(theirs)

        self.thread = threading.Thread(target=serve)
        self.thread.start()

    def make_ticket(self, place: ReachablePlace, _: Share) -> bytes:
        """Log in, which may block, and make a ticket."""
        place.connect()
        return b"ticket of " + place.name.encode()

    def say(self, **command: Any) -> None:
        os.write(self.commands, msgspec.json.encode(command) + b"\n")

    def end(self) -> int | None:
        """End the launcher, and return the exit status of the places."""
        if self.commands >= 0:
            os.close(self.commands)
            self.commands = -1
        self.thread.join(WITHIN_S)
        assert not self.thread.is_alive(), "the places do not end"
        self.hear()
        os.close(self.output)
        return self.code

    def hear(self, wait_s: float = 0.0) -> list[PlacesReport]:
        """Read the reports."""
        if select.select([self.output], [], [], wait_s)[0]:
            *lines, self._rest = (self._rest + os.read(self.output, 1 << 16)).split(b"\n")
            self.reports += [msgspec.json.decode(line, type=PlacesReport) for line in lines]
        return self.reports

    def wait(self, what: Any) -> None:
        """Wait until a condition holds."""
        until = time.monotonic() + WITHIN_S
        while not what():
            assert time.monotonic() < until, (self.reports, self.states())
            self.hear(0.01)

    def states(self) -> dict[str, str]:
        """Return the last reported states."""
        for report in reversed(self.reports):
            if report.hosts is not None:
                return {host.name: host.state for host in report.hosts}
        return {}

    def notes(self) -> list[str]:
        return [report.note for report in self.reports if report.note]
