"""Check one host as `rscoop doctor` does: can it be used, and what should the user change?

The steps: look its name up, log in, look for Python, run a program there (`probe`), and compare its answers
with this machine. A step that fails ends the look; what was found before stays in the report.
"""

from __future__ import annotations

import contextlib
import ipaddress
import secrets
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from enum import Enum
from typing import Final, Self

import msgspec

from resilient_scoop._version import __version__
from resilient_scoop.counts import sized
from resilient_scoop.errors import PlaceError
from resilient_scoop.hosts import probe
from resilient_scoop.hosts.addresses import addresses_of
from resilient_scoop.hosts.door import Done, Door
from resilient_scoop.hosts.hostfile import Host
from resilient_scoop.hosts.remote_command import (
    FoundPython,
    RemoteSettings,
    failed_search,
    program_command,
    read_found,
    search_command,
    search_script,
    usable,
)

FREE_BYTES_MIN: Final = 1 << 30
CLOCK_S_MAX: Final = 5.0
FILES_MIN: Final = 256
PROCESSES_PER_WORKER: Final = 4
PROCESSES_SPARE: Final = 64
_LOOK_UP_S: Final = 10.0
_LISTEN_MAX: Final = 256
_NONCE_BYTES: Final = 16
_LOCAL_NAMES: Final = ("localhost", "localhost.localdomain", "ip6-localhost")


class Level(Enum):
    """How bad a finding is."""

    WARNING = "warning"  # the host can be used
    PROBLEM = "problem"  # it cannot


class HostFinding(msgspec.Struct, frozen=True):
    """A problem of a host; one sentence with cause and cure."""

    level: Level
    text: str


class CheckupReport(msgspec.Struct, frozen=True):
    """The findings about a host; a field is empty if the checks did not get that far."""

    name: str
    is_usable: bool
    findings: list[HostFinding]
    addresses: list[str] = []
    login_s: float | None = None
    python: str = ""  # version
    python_path: str = ""
    rscoop: str = ""
    packages: dict[str, str] = {}  # those of another version than here
    cores: int = 0
    memory_bytes: int = 0
    home_free_bytes: int = 0
    tmp_free_bytes: int = 0
    clock_s: float | None = None  # how far its clock is ahead of ours
    route: str = ""  # the address by which it reaches this machine, "tunnel", or empty
    files_max: int = 0
    processes_max: int = 0


class ThisMachine(msgspec.Struct, frozen=True):
    """This machine, which hosts are compared with."""

    packages: Mapping[str, str]  # versions of packages on which results may depend
    external_address: str = ""  # the address that the user gave for hosts to reach
    is_tunneled: bool = False  # the user wants a tunnel: no other route is tried


class Listener:
    """A port of this machine that hosts try to reach; each sends a nonce and gets it back."""

    def __init__(self) -> None:
        """Listen on all addresses, on a free port."""
        try:
            self._server = socket.create_server(
                ("::", 0), family=socket.AF_INET6, dualstack_ipv6=True, backlog=_LISTEN_MAX
            )
        except OSError:  # no IPv6 here
            self._server = socket.create_server(("", 0), backlog=_LISTEN_MAX)
        self.port: int = self._server.getsockname()[1]
        self.nonce = secrets.token_hex(_NONCE_BYTES)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                sock, _ = self._server.accept()
            except OSError:
                return
            with sock, contextlib.suppress(OSError):
                sock.settimeout(1.0)
                if sock.recv(64) == self.nonce.encode():
                    sock.sendall(self.nonce.encode())

    def close(self) -> None:
        """Stop listening."""
        with contextlib.suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Checkup:
    """One check of one host."""

    def __init__(
        self,
        host: Host,
        door: Door,
        settings: RemoteSettings,
        here: ThisMachine,
        listener: Listener,
        clocks: tuple[Callable[[], float], Callable[[], float]],
    ) -> None:
        self._host = host
        self._door = door
        self._settings = settings
        self._here = here
        self._listener = listener
        self._monotonic, self._wall = clocks
        self._report = CheckupReport(host.name, is_usable=False, findings=[])

    def run(self) -> CheckupReport:
        """Check the host; this takes some minutes at most, if every step reaches its time limit."""
        try:
            self._look()
        except PlaceError as error:
            self._problem(str(error).removeprefix(f"{self._host.name}: "))
        finally:
            self._door.close()
        is_usable = all(each.level is not Level.PROBLEM for each in self._report.findings)
        return msgspec.structs.replace(self._report, is_usable=is_usable)

    def _look(self) -> None:
        self._look_up()
        began = self._monotonic()
        self._door.connect()
        search = search_command(self._host, self._settings)
        done = self._door.run(search, search_script(self._host, self._settings))
        self._note(login_s=self._monotonic() - began)
        found = read_found(done.lines)
        python = self._choose(found, done)
        if python is None:
            return
        self._note(python=python.python, python_path=python.path, rscoop=python.rscoop or "")
        answer = self._asked(python, self._routes())
        if answer is not None:
            self._compare(answer)
            self._check_route(answer, python)

    def _look_up(self) -> None:
        if self._door.kind == "local":
            return
        with contextlib.suppress(OSError, UnicodeError):
            found = addresses_of(self._host.target, None, within_s=_LOOK_UP_S)
            addresses = list(dict.fromkeys(str(each[4][0]).partition("%")[0] for each in found))
            self._note(addresses=addresses)
            if _is_loopback(addresses) and self._host.target not in (*_LOCAL_NAMES, *addresses):
                self._warn(
                    f"its name leads to {addresses[0]}, which is this machine itself; correct "
                    "/etc/hosts here, "
                    "or give address= in the hostfile"
                )

    def _choose(self, found: list[FoundPython], done: Done) -> FoundPython | None:
        best = usable(found)
        if best is not None:
            self._check_version(best)
            return best
        if not found:
            self._problem(failed_search(done, self._host, self._settings))
            return None
        self._problem(
            f"no Python there can run an agent: {'; '.join(each.text for each in found)}. Install "
            f"resilient-scoop {__version__} there, or name another Python with python= or --python"
        )
        return next((each for each in found if each.python), None)

    def _check_version(self, python: FoundPython) -> None:
        ours = sys.version_info
        if python.version[:2] != ours[:2]:
            self._problem(
                f"Python {python.python} there, {ours[0]}.{ours[1]}.{ours[2]} here; functions and "
                "values can be "
                f"sent only between the same minor versions: install Python {ours[0]}.{ours[1]} "
                "there, or name "
                "one with python= or --python"
            )
        if python.rscoop != __version__:
            self._problem(
                f"resilient_scoop {python.rscoop} there, {__version__} here; install the same version "
                "on both: "
                f"`{python.path} -m pip install resilient-scoop=={__version__}`"
            )

    def _routes(self) -> list[tuple[str, int]]:
        if self._here.is_tunneled:
            return []
        address = self._here.external_address or self._door.route()
        return [(address, self._listener.port)] if address else []

    def _asked(
        self, python: FoundPython, routes: list[tuple[str, int]]
    ) -> probe.ProbeAnswer | None:
        asked = probe.ProbeTask(tuple(self._here.packages), routes, self._listener.nonce)
        command = program_command(python.path, self._host, self._settings)
        before = self._wall()
        done = self._door.run(command, probe.program(asked))
        after = self._wall()
        answer = probe.read_answer(done.lines)
        if answer is None:
            output = " ".join(done.output.split())[-300:]
            self._problem(f"{python.path} does not run the check; its output: {output or 'none'}")
            return None
        ahead = answer.at - after if answer.at > after else min(answer.at - before, 0.0)
        self._note(clock_s=round(ahead, 3))
        return answer

    def _compare(self, answer: probe.ProbeAnswer) -> None:
        differing = {
            name: version
            for name, version in answer.packages.items()
            if self._here.packages.get(name, version) != version
        }
        self._note(
            packages=differing,
            cores=answer.cores,
            memory_bytes=answer.memory_bytes,
            home_free_bytes=answer.home_free_bytes,
            tmp_free_bytes=answer.tmp_free_bytes,
            files_max=answer.files_max,
            processes_max=answer.processes_max,
        )
        for text in _differences(differing, self._here):
            self._warn(text)
        for text in _shortages(answer, self._host.workers or answer.cores):
            self._warn(text)
        self._judge(answer)

    def _judge(self, answer: probe.ProbeAnswer) -> None:
        """Report problems of the host itself."""
        if self._door.kind != "local" and _is_loopback(answer.own_addresses):
            self._warn(
                f"there, its own name {answer.hostname} leads to {answer.own_addresses[0]}; libraries that "
                "ask for the host's address get one that others cannot reach: correct /etc/hosts there"
            )
        if answer.kept_why:
            self._problem(
                f"it has no folder for the files of a run ({answer.kept_why}); free some space, or name "
                "one: export RSCOOP_HOST_DIR=/some/local/folder (in --prolog)"
            )
        if answer.home_why:
            self._warn(
                f"its home folder {answer.home} cannot be written to ({answer.home_why}); free some "
                "space there or correct its owner: programs that tasks use may need it"
            )
        if answer.byte_order != sys.byteorder:
            self._problem(
                f"its byte order is {answer.byte_order}, here it is {sys.byteorder}; arrays cannot be "
                "shared with such a host: leave it out"
            )
        ahead_s = self._report.clock_s or 0.0
        if abs(ahead_s) > CLOCK_S_MAX:
            self._warn(
                f"its clock is {_ahead(ahead_s)}; this does not harm the run, but times in "
                "logs will be wrong: switch on NTP there"
            )

    def _check_route(self, answer: probe.ProbeAnswer, python: FoundPython) -> None:
        for address, why in answer.routes.items():
            if not why:
                self._note(route=address)
                return
            self._warn(
                f"it cannot reach this machine at {address} ({why}); open the firewall, name another "
                "address "
                "with --external-address, or send all traffic through SSH with --tunnel"
            )
        if not answer.routes and not self._here.is_tunneled:
            self._warn("there is no direct route from it to here; run with --tunnel")
        try:
            self._try_tunnel(python)
        except PlaceError as error:
            self._problem(str(error).removeprefix(f"{self._host.name}: "))

    def _try_tunnel(self, python: FoundPython) -> None:
        host, _, port = self._door.tunnel(self._listener.port).rpartition(":")
        answer = self._asked(python, [(host, int(port))])
        why = "no answer" if answer is None else answer.routes.get(host, "no answer")
        if why:
            self._problem(
                f"a tunnel through SSH does not work ({why}); check AllowTcpForwarding and "
                "PermitListen in "
                "its sshd_config"
            )
        else:
            self._note(route="tunnel")

    def _note(self, **fields: object) -> None:
        self._report = msgspec.structs.replace(self._report, **fields)

    def _warn(self, text: str) -> None:
        self._report.findings.append(HostFinding(Level.WARNING, text))

    def _problem(self, text: str) -> None:
        self._report.findings.append(HostFinding(Level.PROBLEM, text))


def _is_loopback(addresses: list[str]) -> bool:
    found = [ipaddress.ip_address(each.partition("%")[0]) for each in addresses]
    return bool(found) and all(each.is_loopback for each in found)


def _differences(differing: Mapping[str, str], here: ThisMachine) -> Iterator[str]:
    for name, version in sorted(differing.items()):
        yield (
            f"{name} {version} there, {here.packages[name]} here; values of its types may not be "
            "readable, or "
            f"computed differently: install the same version"
        )


def _shortages(answer: probe.ProbeAnswer, workers: int) -> Iterator[str]:
    folders = (
        (answer.home, answer.home_free_bytes), (answer.tmp, answer.tmp_free_bytes),
        (answer.kept, answer.kept_free_bytes),
    )  # fmt: skip
    for folder, free in dict(folders).items():
        if folder and free < FREE_BYTES_MIN:
            yield f"{sized(free)} free in {folder}; free some space: programs fail or wait when it is full"
    if answer.tmp_why:
        yield f"{answer.tmp} cannot be written to ({answer.tmp_why}); set TMPDIR with --prolog"
    elif answer.tmp_exec_why:
        yield (
            f"programs cannot be run from {answer.tmp} ({answer.tmp_exec_why}; mounted noexec?); "
            "packages "
            "that compile at run time need another folder: set TMPDIR with --prolog"
        )
    if 0 <= answer.files_max < FILES_MIN:
        yield f"a process may open {answer.files_max} files only; raise `ulimit -n` to {FILES_MIN} or more"
    wanted = PROCESSES_SPARE + workers * PROCESSES_PER_WORKER
    if 0 <= answer.processes_max < wanted:
        yield (
            f"the user may have {answer.processes_max} processes only; {workers} workers and what "
            "they start "
            f"may need {wanted}: raise `ulimit -u`"
        )


def _ahead(seconds: float) -> str:
    return f"{abs(seconds):.0f} s {'ahead' if seconds > 0 else 'behind'}"
