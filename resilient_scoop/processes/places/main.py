"""The places of a run: the shell of `core.places`, which carries out its actions with `Place` objects.

It is a process of its own, because connections to hosts need threads and the launcher forks. Standard
input carries the launcher's commands (`commands`), standard output reports to it (`reports`). At end of
file it ends at once: agents outlive it, and the next one finds them by the tags in `RUN/units`.
"""

from __future__ import annotations

import contextlib
import os
import select
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn, assert_never

import msgspec

from resilient_scoop.core import places
from resilient_scoop.core.places import PlaceConfig, Places, PlacesConfig
from resilient_scoop.errors import PlaceError
from resilient_scoop.hosts.hostfile import Host, split_total
from resilient_scoop.processes.places import notes
from resilient_scoop.processes.places.calls import MakeTicket, PlaceCalls, PlaceOfHost, Share
from resilient_scoop.processes.places.commands import event_of
from resilient_scoop.processes.places.reports import PlacesReport
from resilient_scoop.processes.places.settings import PlacesSettings
from resilient_scoop.processes.places.units_file import NAME, UnitsFile
from resilient_scoop.runs.hosts import HostReport, HostsFile, write_hosts

if TYPE_CHECKING:
    from resilient_scoop.hosts.make import ReachablePlace

MakePlace = Callable[[Host], "ReachablePlace"]
REPORT_S: Final = 0.25
FILE_S: Final = 1.0
IDLE_S: Final = 60.0
_READ_BYTES: Final = 1 << 16
UNSENT_MAX: Final = 1 << 20


class PlacesShell:
    """Carries out the machine's actions, and gives it events."""

    def __init__(
        self, settings: PlacesSettings, hosts: Mapping[str, PlaceOfHost], make_ticket: MakeTicket,
        *, stdin: int = 0, stdout: int = 1,
    ) -> None:  # fmt: skip
        self.settings = settings
        self.hosts = hosts
        self.run = Path(settings.run_dir)
        config = PlacesConfig(
            settings.run_id,
            tuple(PlaceConfig(host.name, (host.name,)) for host in settings.hosts),
            min_hosts=settings.min_hosts, min_hosts_s=settings.min_hosts_s,
            stop_grace_s=settings.stop_grace_s,
        )  # fmt: skip
        self.machine = Places(config)
        self.units = UnitsFile(self.run)
        self.calls = PlaceCalls(hosts, make_ticket)
        self.stdin, self.stdout = stdin, stdout
        os.set_blocking(stdin, False)
        os.set_blocking(stdout, False)
        self._line = b""  # the beginning of a command
        self._unsent = b""
        self._reported: list[HostReport] = []  # without durations, which always change
        self._reported_at = self._filed_at = -IDLE_S
        self._has_changed = self._is_unfiled = False
        self.is_over = False

    def serve(self) -> int:
        """Serve until the machine leaves or the launcher is gone; return the exit status."""
        self._begin()
        while not self.is_over:
            self._turn(self._wait())
        self._report_hosts(time.monotonic(), last=True)
        self._send()
        self.calls.close()
        self.units.close()
        return 0

    def _wait(self) -> set[int]:
        now = time.monotonic()
        wait_s = min(IDLE_S, self.machine.deadline() - now)
        if self._has_changed:
            wait_s = min(wait_s, self._reported_at + REPORT_S - now)
        if self._is_unfiled:
            wait_s = min(wait_s, self._filed_at + FILE_S - now)
        writing = [self.stdout] if self._unsent else []
        found = select.select([self.stdin, self.calls.wake], writing, [], max(0.0, wait_s))
        return {*found[0], *found[1]}

    def _turn(self, ready: set[int]) -> None:
        """Give the machine the events and the time."""
        if self.calls.wake in ready:
            os.eventfd_read(self.calls.wake)
            for over in self.calls.over():
                self._report(PlacesReport(over=over))
            for event in self.calls.events():
                self._step(event)
        if self.stdin in ready:
            self._hear()
        if time.monotonic() >= self.machine.deadline():
            self._step(places.PlacesTicked(os.urandom(5).hex()))
        self._report_hosts(time.monotonic())
        self._send()

    def _begin(self) -> None:
        """Begin, with the commands that have arrived: drained and revoked hosts are not started."""
        early = self._commands() if select.select([self.stdin], [], [], 0.0)[0] else []
        out: dict[type[places.Event], list[str]] = {
            places.HostDrained: [], places.HostRevoked: [],
        }  # fmt: skip
        for event in early:
            if isinstance(event, places.HostDrained | places.HostRevoked):
                out[type(event)].append(event.host)
        drained, revoked = map(tuple, out.values())
        self._step(places.Began(self.units.found, drained, revoked))
        for event in early:
            self._step(event)

    def _hear(self) -> None:
        """Handle commands."""
        for event in self._commands():
            self._step(event)

    def _commands(self) -> list[places.Event]:
        """Read commands; end if the launcher has ended."""
        data = os.read(self.stdin, _READ_BYTES)
        if not data:
            self.is_over = True
            return []
        *lines, self._line = (self._line + data).split(b"\n")
        events = [event_of(line, self.calls.jitter()) for line in lines]
        if None in events:
            self.calls.renew()
        return [each for each in events if each is not None]

    def _step(self, event: places.Event) -> None:
        if self.is_over:
            return
        for action in self.machine.step(event, time.monotonic()):
            self._do(action)
        self._has_changed = True
        if isinstance(event, places.EndUnits):
            for failed in self.calls.withdraw():
                self._step(failed)

    def _do(self, action: places.Action) -> None:
        match action:
            case places.WriteTag(host=host, tag=tag):
                self._step(self._write(host, tag))
            case places.DropTag(host=host, tag=tag):
                self.units.drop(host, tag)
            case places.StartUnit() | places.Look() | places.Find() | places.StopUnits():
                self.calls.ask(action)
            case places.ShowNote(note=note):
                self._report(PlacesReport(note=notes.text_of(note, self.settings.run_id)))
            case places.GiveUp():
                text = notes.given_up(action, self.settings.run_id)
                self._report(PlacesReport(note=text, fatal=PlaceError.exit_code))
            case places.EndPlaces():
                self.is_over = True
            case _:
                assert_never(action)

    def _write(self, host: str, tag: str) -> places.Event:
        try:
            self.units.write(host, tag)
        except OSError as error:
            why = f"{self.run / NAME} cannot be written: {error.strerror or error}"
            jitter = self.calls.jitter()
            return places.Failed(
                host, tag, places.PlaceCall.WRITE, why, unasked=True, jitter=jitter
            )
        return places.TagWritten(host, tag)

    def _report_hosts(self, now: float, *, last: bool = False) -> None:
        """Report hosts that have changed, and keep `hosts.json` up to date."""
        if self._has_changed and (last or now - self._reported_at >= REPORT_S):
            self._has_changed = False
            reports = [self._host(view) for view in self.machine.hosts(now)]
            lasting = [msgspec.structs.replace(each, again_s=0.0, until_s=None) for each in reports]
            lasting = [msgspec.structs.replace(each, quarantine_s=0.0) for each in lasting]
            if lasting != self._reported:
                self._reported, self._reported_at = lasting, now
                self._is_unfiled = True
                self._report(PlacesReport(hosts=reports))
        if self._is_unfiled and (last or now - self._filed_at >= FILE_S):
            self._is_unfiled, self._filed_at = False, now
            at = time.time()  # noqa: TID251 - a label for display
            hosts = [self._host(view) for view in self.machine.hosts(now)]
            with contextlib.suppress(OSError):  # a full disk, or the run's folder is gone
                write_hosts(self.run, HostsFile(at, hosts))

    def _host(self, view: places.HostView) -> HostReport:
        return HostReport(
            name=view.name, state=view.out or view.state.value,
            why=view.why.removeprefix(f"{view.name}: "), log=view.log,  # it is shown beside the name
            workers=self.hosts[view.name].share.workers, quarantine_s=view.quarantine_s,
            again_s=view.again_s, until_s=view.until_s,
        )  # fmt: skip

    def warn(self, text: str) -> None:
        """Have the user told something about the hosts."""
        self._report(PlacesReport(note=text))

    def _report(self, report: PlacesReport) -> None:
        """Queue a line; if the launcher does not read, reports of hosts are left out."""
        if len(self._unsent) < UNSENT_MAX or report.hosts is None:
            self._unsent += msgspec.json.encode(report) + b"\n"

    def _send(self) -> None:
        try:
            while self._unsent:
                self._unsent = self._unsent[os.write(self.stdout, self._unsent) :]
        except BlockingIOError:
            return
        except BrokenPipeError:
            self.is_over = True  # the launcher has ended


def shares(settings: PlacesSettings) -> dict[str, Share]:
    """Return the number of workers of each host."""
    split = split_total(settings.workers, settings.hosts)
    return {
        host.name: Share(host, split.workers[host.name], split.limits.get(host.name))
        for host in settings.hosts
    }


def serve(
    settings: PlacesSettings,
    make_place: MakePlace,
    make_ticket: MakeTicket,
    warnings: Sequence[str] = (),
) -> NoReturn:
    """Serve the places of a run; then end the process, even if threads still wait."""
    hosts = {
        name: PlaceOfHost(make_place(share.host), share) for name, share in shares(settings).items()
    }
    shell = PlacesShell(settings, hosts, make_ticket)
    for text in warnings:
        shell.warn(text)
    os._exit(shell.serve())
