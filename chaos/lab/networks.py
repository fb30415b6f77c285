"""The network of a lab: what connects its hosts, and how the link of a host can be changed.

Both networks are in namespaces of their own. `Bridge` is the kernel's, fast and without limits;
`Tun` is a switch in Python (`chaos.lab.tunswitch`), with delay, loss and rates. A way is a
direction seen from the host: packets to it ("in"), packets from it ("out").
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal, Protocol

from chaos.lab import namespaces
from chaos.lab.needs import LabError, call
from chaos.lab.undo import UndoLog

Direction = Literal["in", "out", "both"]
WAYS = ("in", "out")
DEVICE = "eth0"
_TUNSWITCH = Path(__file__).with_name("tunswitch.py")
_MTU = 1500
_ADDRESSING = ("meta protocol arp", "icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert }")


def ways(direction: Direction) -> tuple[str, ...]:
    """Return the ways that a direction means."""
    return WAYS if direction == "both" else (direction,)


class Network(Protocol):
    """What connects hosts."""

    pid: int  # a process in the network's namespace, or the process that carries its packets

    def plug(self, name: str, pid: int, addresses: list[str]) -> None:
        """Give the network of a process a device with addresses, connected to all other hosts."""

    def unplug(self, name: str) -> None:
        """Remove a host's device; no packet of it arrives any more, and the others are not notified."""

    def cut(self, name: str, cut: dict[str, bool]) -> None:
        """Drop packets of a way from now on, or no longer."""

    def cable(self, name: str, *, is_in: bool) -> None:
        """Pull a host's cable, or plug it in; the host's own kernel notices it."""

    def shape(self, name: str, way: str, rule: dict[str, Any]) -> None:
        """Set delay, loss and rates of a way."""

    def dropped(self, name: str) -> dict[str, int]:
        """Return how many packets were dropped by cuts and by loss: way -> number."""

    def slowed(self, name: str) -> int:
        """Return how many packets of a host, in both directions, were delayed."""

    def close(self) -> None:
        """End the network."""


def _held(argv: list[str], **more: Any) -> subprocess.Popen[str]:
    """Start a process that the kernel kills when the thread that called this ends."""
    return subprocess.Popen(
        ["setpriv", "--pdeathsig", "KILL", "--", *argv],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, **more,
    )  # fmt: skip


def _card(addresses: list[str]) -> str:
    """Return the hardware address of a host's network card: a reboot does not change it."""
    return "02:00:" + ":".join(f"{int(part):02x}" for part in addresses[0].split("."))


def _configure(pid: int, addresses: list[str]) -> None:
    """Give a host's device its addresses."""
    lines = ["link set lo up", f"link set {DEVICE} mtu {_MTU} up"]
    for address in addresses:
        mask, flags = ("64", " nodad") if ":" in address else ("24", "")
        lines.append(f"addr add {address}/{mask} dev {DEVICE}{flags}")
    call(namespaces.command(pid, ("net",), ["ip", "-batch", "-"]), "\n".join(lines) + "\n")


class Bridge:
    """A bridge of the kernel in a namespace of its own; cuts are rules of nftables on it."""

    def __init__(self, log: UndoLog) -> None:
        script = "ip link add lab0 type bridge && ip link set lab0 up && echo ready && exec sleep infinity"
        self.process = _held(["unshare", "--net", "sh", "-c", script])
        log.process(self.process.pid)
        self.pid = self.process.pid
        assert self.process.stdout is not None
        if self.process.stdout.readline() != "ready\n":
            raise LabError("the bridge cannot be made")
        self.cuts: dict[str, dict[str, bool]] = {}
        self._nft("add table bridge lab")
        self._nft(
            "add chain bridge lab forward { type filter hook forward priority 0; policy accept; }"
        )

    def plug(self, name: str, pid: int, addresses: list[str]) -> None:
        """Connect a host by a pair of devices."""
        self.cuts[name] = dict.fromkeys(WAYS, False)
        for way in WAYS:
            self._nft(f"add counter bridge lab {name}_{way}")
        self._ip(
            f"link add {name} type veth peer name {DEVICE} address {_card(addresses)} netns {pid}",
            f"link set {name} master lab0",
            f"link set {name} up",
        )
        _configure(pid, addresses)

    def unplug(self, name: str) -> None:
        """Delete the pair: packets that the host's kernel still holds are not sent."""
        self._ip(f"link set {name} down", f"link delete {name}")
        del self.cuts[name]
        self._rewrite()

    def cut(self, name: str, cut: dict[str, bool]) -> None:
        """Drop packets on the bridge, so that neither end is notified."""
        self.cuts[name].update(cut)
        self._rewrite()

    def cable(self, name: str, *, is_in: bool) -> None:
        """Set the bridge's end of the pair down or up."""
        self._ip(f"link set {name} {'up' if is_in else 'down'}")

    def shape(self, name: str, way: str, rule: dict[str, Any]) -> None:
        """Raise an error: the kernel's bridge cannot do this."""
        raise LabError(f"{', '.join(rule)} of {name}, {way}: make the lab with network='tun'")

    def dropped(self, name: str) -> dict[str, int]:
        """Return the counts of the rules."""
        listing = ["nft", "-j", "list", "counters", "table", "bridge", "lab"]
        text = call(namespaces.command(self.pid, ("net",), listing))
        counters = [each["counter"] for each in json.loads(text)["nftables"] if "counter" in each]
        packets = {each["name"]: each["packets"] for each in counters}
        return {way: packets[f"{name}_{way}"] for way in WAYS}

    def slowed(self, name: str) -> int:  # noqa: ARG002 - the base's signature
        """Return 0: the bridge delays nothing."""
        return 0

    def close(self) -> None:
        """End the process that holds the namespace."""
        self.process.kill()
        self.process.communicate()

    def _rewrite(self) -> None:
        """Write all cuts; a cut of one direction lets ARP requests pass, as a firewall does."""
        whole, half = [], []
        for name, cut in self.cuts.items():
            for way, device in (("in", "oifname"), ("out", "iifname")):
                drop = f'{device} "{name}" counter name {name}_{way} drop'
                if all(cut.values()):
                    whole.append(drop)
                elif cut[way]:
                    half += [f'{device} "{name}" {each} accept' for each in _ADDRESSING] + [drop]
        rules = [f"add rule bridge lab forward {rule}" for rule in whole + half]
        self._nft("\n".join(["flush chain bridge lab forward", *rules]))

    def _nft(self, text: str) -> None:
        call(namespaces.command(self.pid, ("net",), ["nft", "-f", "-"]), text + "\n")

    def _ip(self, *lines: str) -> None:
        call(namespaces.command(self.pid, ("net",), ["ip", "-batch", "-"]), "\n".join(lines) + "\n")


class Tun:
    """A switch in Python, in a process of its own."""

    def __init__(self, log: UndoLog, seed: int) -> None:
        self.process = _held([sys.executable, "-I", str(_TUNSWITCH), str(seed)])
        log.process(self.process.pid)
        self.pid = self.process.pid
        self.plugs: dict[str, tuple[int, list[str]]] = {}

    def plug(self, name: str, pid: int, addresses: list[str]) -> None:
        """Make a device in the host's network; its packets come to the switch."""
        self._do("plug", name, pid=pid, addresses=addresses)
        _configure(pid, addresses)
        self.plugs[name] = (pid, addresses)

    def unplug(self, name: str) -> None:
        """Close the device of a host."""
        del self.plugs[name]
        self._do("unplug", name)

    def cut(self, name: str, cut: dict[str, bool]) -> None:
        """Make the switch drop the packets of this direction."""
        for way, is_cut in cut.items():
            self._do("rule", name, way=way, set={"cut": is_cut})

    def cable(self, name: str, *, is_in: bool) -> None:
        """Set the device in the host down or up: a TUN device has no other end."""
        pid, addresses = self.plugs[name]
        if is_in:
            _configure_again(pid, addresses)
        else:
            call(namespaces.command(pid, ("net",), ["ip", "link", "set", DEVICE, "down"]))

    def shape(self, name: str, way: str, rule: dict[str, Any]) -> None:
        """Send the rule to the switch."""
        self._do("rule", name, way=way, set=rule)

    def counters(self, name: str) -> dict[str, dict[str, int]]:
        """Return all counts of the switch for a host: direction -> kind -> number."""
        return self._do("counters", name)

    def dropped(self, name: str) -> dict[str, int]:
        """Return how many packets were cut, lost, or dropped because a queue was full."""
        return {
            way: each["cut"] + each["lost"] + each["overflow"]
            for way, each in self.counters(name).items()
        }

    def slowed(self, name: str) -> int:
        """Return how many packets were delayed by delay, jitter, reordering and rates."""
        return sum(each["slowed"] for each in self.counters(name).values())

    def close(self) -> None:
        """End the process of the switch."""
        self.process.communicate()

    def _do(self, what: str, name: str, **more: Any) -> dict[str, Any]:
        stdin, stdout = self.process.stdin, self.process.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(json.dumps({"do": what, "name": name, **more}) + "\n")
        stdin.flush()
        line = stdout.readline()
        if not line:
            raise LabError(f"the switch has ended, at: {what} {name}")
        answer: dict[str, Any] = json.loads(line)
        return answer


def _configure_again(pid: int, addresses: list[str]) -> None:
    """Set a device up and add its IPv6 addresses again: the kernel dropped them when it went down."""
    call(namespaces.command(pid, ("net",), ["ip", "link", "set", DEVICE, "up"]))
    for address in addresses:
        if ":" in address:
            add = ["ip", "addr", "replace", f"{address}/64", "dev", DEVICE, "nodad"]
            call(namespaces.command(pid, ("net",), add))
