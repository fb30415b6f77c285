"""The lab: hosts, the network between them, and what can be done to them."""

from __future__ import annotations

import os
import pwd
import shutil
import site
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, TypeVar

from chaos.lab import namespaces, stations, undo
from chaos.lab.doors import Doors
from chaos.lab.freezing import freezer_of
from chaos.lab.needs import LabError, call, missing_needs
from chaos.lab.networks import Bridge, Direction, Network, Tun, ways
from chaos.lab.stations import Plan, Station

DESK = "desk"
NAMES = ("alice", "bob", "carol", "dave", "erin", "frank", "grace", "heidi")
_DESK_NUMBER = 254
_READY_S = 10.0
_POLL_S = 0.005
_CHECKOUT = Path(__file__).parents[2]

T = TypeVar("T")


class Lab:
    """Some workstations and a desk on one network. A context manager: on exit, nothing of it is left.

    Args:
        hosts: How many workstations; their names are those of `NAMES`.
        network: "bridge" (the kernel's) or "tun" (a switch in Python, with delay, loss and rates).
        seed: Seed of the switch's random numbers.
        shared: More paths that all hosts see, where they lie in a home folder, in /tmp or in /var/tmp;
            those of Python and of this checkout are always among them.
        boot: Whether all workstations are switched on at the beginning.

    The processes of a host live no longer than the thread that booted it.
    """

    def __init__(
        self,
        hosts: int = 3,
        network: Literal["bridge", "tun"] = "bridge",
        *,
        seed: int = 1,
        shared: Iterable[Path] = (),
        boot: bool = True,
    ) -> None:
        self.hosts = list(NAMES[:hosts])
        self.kind = network
        self.seed = seed
        self.more_shared = tuple(shared)
        self.boots = boot
        self.stations: dict[str, Station] = {}
        self.cuts: dict[str, set[str]] = {}
        self.user = pwd.getpwuid(os.geteuid())

    def __enter__(self) -> Self:
        missing = missing_needs(self.kind)
        if missing:
            raise LabError("; ".join(missing))
        self.folder = Path(tempfile.mkdtemp(prefix=undo.PREFIX, dir=undo.ROOT))
        self.log = undo.UndoLog(self.folder)
        try:
            self._build()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _build(self) -> None:
        self.shared.mkdir()
        (self.folder / "logs").mkdir()
        (self.folder / "disks").mkdir()
        lines = [
            f"{address} {name}\n"
            for name in [DESK, *self.hosts]
            for address in self._addresses(name)
        ]
        text = "127.0.0.1 localhost\n::1 localhost\n" + "".join(lines)
        (self.folder / "hosts").write_text(text)
        self.network: Network = (
            Bridge(self.log) if self.kind == "bridge" else Tun(self.log, self.seed)
        )
        self.doors = Doors(self.folder / "keys")
        for name in self.hosts:
            self.doors.sshd_config(name)
        self.boot(DESK)
        self.doors.furnish(self.home(DESK), {name: self._addresses(name) for name in self.hosts})
        for name in self.hosts if self.boots else ():
            self.boot(name)

    def close(self) -> None:
        """Switch everything off and remove it."""
        for name in list(self.stations):
            self.power_off(name)
        if hasattr(self, "network"):
            self.network.close()
        undo.undo(self.folder)

    @property
    def shared(self) -> Path:
        """A folder that all hosts see under the same path."""
        return self.folder / "shared"

    def home(self, name: str) -> Path:
        """Return where the machine sees the home folder of a host's user."""
        return self.folder / "disks" / name / "home"

    def var_tmp(self, name: str) -> Path:
        """Return where the machine sees the /var/tmp of a host, which survives a reboot."""
        return self.folder / "disks" / name / "var-tmp"

    def temporary(self, name: str) -> Path:
        """Return where the machine sees the /tmp of a host that is switched on."""
        return Path(f"/proc/{self._station(name).pid}/root/tmp")

    def address(self, name: str, version: Literal[4, 6] = 4) -> str:
        """Return an address of a host."""
        return self._addresses(name)[0 if version == 4 else 1]  # noqa: PLR2004 - versions of IP

    def _addresses(self, name: str) -> list[str]:
        number = _DESK_NUMBER if name == DESK else 1 + self.hosts.index(name)
        return [f"10.77.0.{number}", f"fd77::{number:x}"]

    def is_on(self, name: str) -> bool:
        """Return whether a host is switched on."""
        return name in self.stations

    def processes(self, name: str) -> dict[int, str]:
        """Return what runs on a host: id -> command line, without its sshd itself."""
        return self._station(name).processes() if self.is_on(name) else {}

    def _station(self, name: str) -> Station:
        try:
            return self.stations[name]
        except KeyError:
            raise LabError(f"{name} is switched off") from None

    def command(self, name: str, argv: list[str], folder: Path | None = None) -> list[str]:
        """Return the command line that runs `argv` on a host, without SSH."""
        station = self._station(name)
        where = str(folder or self.shared)
        entering = namespaces.command(station.pid, station.plan.spaces, argv, where)
        return entering if station.freezer is None else station.freezer.joining(entering)

    def start(self, name: str, argv: list[str], **more: Any) -> subprocess.Popen[Any]:
        """Start a command on a host; further arguments are those of `subprocess.Popen`.

        On the desk, the process id is that of the command itself.
        """
        return subprocess.Popen(self.command(name, argv, more.pop("cwd", None)), **more)

    def exec(self, name: str, argv: list[str], **more: Any) -> subprocess.CompletedProcess[str]:
        """Run a command on a host to its end; return exit code and output."""
        settings = {"capture_output": True, "text": True, "timeout": 60, **more}
        folder = settings.pop("cwd", None)
        return subprocess.run(self.command(name, argv, folder), check=False, **settings)

    def in_network(self, name: str, work: Callable[[], T]) -> T:
        """Call a function of this program in the network of a host: its sockets are that host's."""
        return namespaces.in_network(self._station(name).pid, work)

    def connect(self, name: str, to: str, port: int, timeout_s: float = 5.0) -> socket.socket:
        """Connect from a host to an address by TCP; a socket of this program."""
        return self.in_network(name, lambda: socket.create_connection((to, port), timeout_s))

    def boot(self, name: str) -> float:
        """Switch a host on; return the seconds until its sshd answered."""
        if self.is_on(name):
            raise LabError(f"{name} is switched on already")
        began = time.monotonic()
        station = stations.switch_on(self._plan(name))
        self.log.process(station.process.pid)
        self.log.process(station.pid)
        if name != DESK:
            station.freezer = freezer_of(f"{self.folder.name}-{name}", station.pid, self.log)
        self.network.plug(name, station.pid, self._addresses(name))
        stations.let_in(station)
        self.stations[name] = station
        self.cuts[name] = set()
        if name != DESK:
            self._await_door(name, began + _READY_S)
        return time.monotonic() - began

    def _plan(self, name: str) -> Plan:
        for folder, mode in ((self.home(name), 0o700), (self.var_tmp(name), 0o777)):
            folder.mkdir(exist_ok=True, parents=True)
            folder.chmod(mode)
        return Plan(
            name,
            name == DESK,
            Path(self.user.pw_dir),
            self.home(name).parent,
            self.folder / "hosts",
            tuple(_paths_of_python({*self.more_shared, _CHECKOUT, self.folder})),
            self.folder / "keys" / f"sshd_{name}.conf",
            self.folder / "logs" / f"{name}.log",
        )

    def _await_door(self, name: str, until: float) -> None:
        while True:
            try:
                with self.connect(name, "127.0.0.1", 22) as door:
                    is_there = door.recv(4) == b"SSH-"
                # otherwise sshd still serves this connection
                if is_there and not self.processes(name):
                    return
            except OSError as error:
                if time.monotonic() > until:
                    log = (self.folder / "logs" / f"{name}.log").read_text()[-500:]
                    raise LabError(f"the sshd of {name} does not answer: {error}; {log}") from None
            time.sleep(_POLL_S)

    def power_off(self, name: str) -> float:
        """Switch a host off without a packet, as by its plug; return the seconds until all was dead."""
        station = self._station(name)
        self.network.unplug(name)
        began = time.monotonic()
        station.kill()
        took_s = time.monotonic() - began
        del self.stations[name]
        return took_s

    def reboot(self, name: str) -> float:
        """Switch a host off and on: its home folder stays, its /tmp doesn't.

        Return the seconds that it took.
        """
        return self.power_off(name) + self.boot(name)

    def wipe(self, name: str) -> None:
        """Remove the files of a host that is switched off: it boots with empty disks."""
        if self.is_on(name):
            raise LabError(f"{name} is switched on")
        shutil.rmtree(self.home(name).parent)

    def sleep(self, name: str) -> None:
        """Put a host to sleep like a laptop: its processes stop, and it sends nothing."""
        station = self._station(name)
        if station.freezer is None:
            raise LabError("the desk cannot sleep: it shares its processes with the machine")
        self.network.cut(name, {"in": True, "out": True})
        station.freezer.freeze()
        station.is_asleep = True

    def is_asleep(self, name: str) -> bool:
        """Return whether all of a host's processes are stopped."""
        freezer = self._station(name).freezer
        return freezer is not None and freezer.is_frozen()

    def wake(self, name: str) -> None:
        """Wake a host; a cut that was there before stays."""
        station = self._station(name)
        if station.freezer is not None:
            station.freezer.thaw()
        station.is_asleep = False
        self.network.cut(name, {way: way in self.cuts[name] for way in ways("both")})

    def cut(self, name: str, direction: Direction = "both") -> None:
        """Drop what goes to a host ("in"), what it sends ("out"), or both; neither end is notified."""
        self.cuts[name] |= set(ways(direction))
        self.network.cut(name, dict.fromkeys(ways(direction), True))

    def heal(self, name: str) -> None:
        """End cuts, and delays, losses and rates."""
        self.cuts[name] = set()
        self.network.cut(name, dict.fromkeys(ways("both"), False))
        if self.kind == "tun":
            calm = {"delay_s": 0.0, "jitter_s": 0.0, "loss": 0.0, "duplicate": 0.0, "reorder": 0.0}
            for way in ways("both"):
                self.network.shape(name, way, {**calm, "rate_bps": 0.0})

    def unplug(self, name: str) -> None:
        """Pull the network cable: unlike with a cut, the host's kernel knows."""
        self.network.cable(name, is_in=False)

    def plug(self, name: str) -> None:
        """Plug the network cable in again."""
        self.network.cable(name, is_in=True)

    def delay(
        self, name: str, delay_s: float, jitter_s: float = 0.0, direction: Direction = "both"
    ) -> None:
        """Delay packets (network "tun"); with jitter, they overtake each other."""
        self._shape(name, direction, delay_s=delay_s, jitter_s=jitter_s)

    def loss(self, name: str, share: float, direction: Direction = "both") -> None:
        """Lose a share of the packets (network "tun")."""
        self._shape(name, direction, loss=share)

    def reorder(self, name: str, share: float, direction: Direction = "both") -> None:
        """Delay a share of the packets by 20 ms, so that others overtake them (network "tun")."""
        self._shape(name, direction, reorder=share)

    def rate(self, name: str, bits_per_s: float, direction: Direction = "both") -> None:
        """Limit the bandwidth (network "tun"); 0: no limit."""
        self._shape(name, direction, rate_bps=bits_per_s)

    def _shape(self, name: str, direction: Direction, **rule: float) -> None:
        self._station(name)
        for way in ways(direction):
            self.network.shape(name, way, rule)

    def dropped(self, name: str) -> dict[str, int]:
        """Return how many packets of a host were dropped on purpose: direction -> number."""
        return self.network.dropped(name)

    def reset_connections(self, name: str) -> int:
        """Reset all TCP connections of a host (RST); return how many there were."""
        inside = ("net",)
        pid = self._station(name).pid
        show = ["ss", "-H", "-t", "-n", "state", "established"]
        before = call(namespaces.command(pid, inside, show)).splitlines()
        call(namespaces.command(pid, inside, ["ss", "-K", *show[1:]]))
        after = set(call(namespaces.command(pid, inside, show)).splitlines())
        return len([line for line in before if line not in after])

    def refuse_connections(self, name: str, *, silently: bool = False) -> None:
        """Make a host's firewall refuse all new TCP connections to it; existing ones stay."""
        verdict = "drop" if silently else "reject with tcp reset"
        text = (
            "table inet lab {\n chain in {\n  type filter hook input priority 0; policy accept;\n"
            f'  iifname "eth0" tcp flags & (syn | ack) == syn counter {verdict}\n }}\n}}\n'
        )
        call(namespaces.command(self._station(name).pid, ("net",), ["nft", "-f", "-"]), text)

    def accept_connections(self, name: str) -> None:
        """Remove that firewall."""
        pid = self._station(name).pid
        call(namespaces.command(pid, ("net",), ["nft", "delete", "table", "inet", "lab"]))

    def capture(self, file: Path) -> subprocess.Popen[bytes]:
        """Record every packet of the desk to a file (pcap) until the returned process is terminated.

        Raises:
            LabError: there is no `tcpdump`.
        """
        if shutil.which("tcpdump") is None and not Path("/usr/bin/tcpdump").exists():
            raise LabError("no tcpdump: install it")
        argv = ["tcpdump", "-i", "eth0", "-U", "-s", "0", "-B", "65536", "-w", str(file)]
        pid = self._station(DESK).pid
        process = subprocess.Popen(
            namespaces.command(pid, ("net",), argv),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        assert process.stderr is not None
        for line in process.stderr:
            if b"listening on" in line:
                return process
        raise LabError(f"tcpdump has ended: exit {process.wait()}")


def _paths_of_python(more: set[Path]) -> list[Path]:
    """Return the paths that a host must see so that this Python and its modules work there."""
    found = {Path(sys.prefix), Path(sys.base_prefix), Path(site.getusersitepackages())}
    found |= {Path(entry) for entry in sys.path if entry}
    found |= {Path(sys.executable).resolve().parent}
    return sorted(path for path in found | more if path.exists())
