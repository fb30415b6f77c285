"""A switch of TUN devices in user space: delay, jitter, loss, reordering, duplicates, limited rates, cuts.

It does what `tc netem` does, which many kernels lack. Each host has one device. A packet from host
A to host B passes the rule of A's way "out", then the rule of B's way "in". All random numbers come
from the seed: each way has its own, so other traffic does not change them.

It is a separate program that uses only the standard library. A line of JSON on standard input is
one command, answered by one line on standard output; at the end of its input it ends.

    {"do": "plug", "name": "alice", "pid": 4711, "addresses": ["10.77.0.1", "fd77::1"]}
    {"do": "rule", "name": "alice", "way": "in", "set": {"delay_s": 0.05, "loss": 0.1}}
    {"do": "unplug", "name": "alice"}
    {"do": "counters", "name": "alice"}
"""

from __future__ import annotations

import ctypes
import fcntl
import heapq
import json
import os
import random
import selectors
import socket
import struct
import sys
import time
from dataclasses import asdict, dataclass, field, replace
from typing import Any

DEVICE = "eth0"
_SET_DEVICE, _TUN, _NO_HEADER = 0x400454CA, 0x0001, 0x1000
_NEW_NETWORK = 0x40000000
_BURST = 64
_PACKET_MAX = 1 << 16
_QUEUE_S = 0.5  # a packet that would wait longer on a slow link is dropped, as a router does
_LATE_S = 0.02  # how much later a reordered packet comes
_LIBC = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Rule:
    """What happens to packets of one way."""

    delay_s: float = 0.0
    jitter_s: float = 0.0  # the delay varies by at most this much; packets may overtake each other
    loss: float = 0.0  # shares of all packets
    duplicate: float = 0.0
    reorder: float = 0.0
    rate_bps: float = 0.0  # bits per second; 0: no limit
    cut: bool = False


@dataclass(slots=True)
class Counters:
    """What happened to packets of one way."""

    seen: int = 0
    cut: int = 0
    lost: int = 0
    overflow: int = 0
    duplicated: int = 0
    reordered: int = 0
    slowed: int = 0  # packets that the rule delayed
    bytes: int = 0


@dataclass(slots=True)
class Way:
    """One direction of a host's link."""

    rng: random.Random
    rule: Rule = Rule()
    count: Counters = field(default_factory=Counters)
    busy_until: float = 0.0

    def pass_at(self, at: float, size: int) -> list[float]:
        """Return the time at which a packet has passed; two times if it is duplicated."""
        rule, count, came_at = self.rule, self.count, at
        count.seen += 1
        if rule.cut:
            count.cut += 1
            return []
        if rule.loss and self.rng.random() < rule.loss:
            count.lost += 1
            return []
        if rule.rate_bps:
            begins = max(at, self.busy_until)
            if begins - at > _QUEUE_S:
                count.overflow += 1
                return []
            at = self.busy_until = begins + size * 8 / rule.rate_bps
        count.bytes += size
        found = [at + self._delay_s()]
        count.slowed += found[0] > came_at
        if rule.duplicate and self.rng.random() < rule.duplicate:
            count.duplicated += 1
            found.append(at + self._delay_s())
        return found

    def _delay_s(self) -> float:
        rule, delay_s = self.rule, self.rule.delay_s
        if rule.jitter_s:
            delay_s = max(0.0, delay_s + self.rng.uniform(-rule.jitter_s, rule.jitter_s))
        if rule.reorder and self.rng.random() < rule.reorder:
            self.count.reordered += 1
            delay_s += _LATE_S
        return delay_s


@dataclass(slots=True)
class Port:
    """A host that is connected to the switch."""

    fd: int
    addresses: list[bytes]
    ways: dict[str, Way]


class Switch:
    """All ports, and the packets in transit."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.selector = selectors.DefaultSelector()
        self.ports: dict[str, Port] = {}
        self.by_address: dict[bytes, str] = {}
        self.flying: list[tuple[float, int, str, bytes]] = []
        self.number = 0

    def run(self) -> None:
        """Carry packets and obey commands until standard input ends."""
        self.selector.register(sys.stdin.fileno(), selectors.EVENT_READ, "")
        rest = b""
        while True:
            timeout_s = max(0.0, self.flying[0][0] - time.monotonic()) if self.flying else None
            for key, _ in self.selector.select(timeout_s):
                if key.data:
                    self._take(key.data)
                    continue
                data = os.read(key.fd, _PACKET_MAX)
                if not data:
                    return
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    print(json.dumps(self.obey(json.loads(line))), flush=True)
            self._land(time.monotonic())

    def obey(self, command: dict[str, Any]) -> dict[str, Any]:
        """Carry out a command; return the answer."""
        name = command["name"]
        match command["do"]:
            case "plug":
                self._plug(name, command["pid"], command["addresses"])
            case "unplug":
                self._unplug(name)
            case "rule":
                way = self.ports[name].ways[command["way"]]
                way.rule = replace(way.rule, **command["set"])
            case "counters":
                return {way: asdict(each.count) for way, each in self.ports[name].ways.items()}
            case what:
                raise ValueError(f"no such command: {what}")
        return {}

    def _plug(self, name: str, pid: int, addresses: list[str]) -> None:
        packed = [_packed(address) for address in addresses]
        ways = {way: Way(random.Random(f"{self.seed} {name} {way}")) for way in ("in", "out")}
        port = Port(_device_in(pid), packed, ways)
        self.ports[name] = port
        self.by_address.update(dict.fromkeys(packed, name))
        self.selector.register(port.fd, selectors.EVENT_READ, name)

    def _unplug(self, name: str) -> None:
        port = self.ports.pop(name)
        self.selector.unregister(port.fd)
        os.close(port.fd)
        for address in port.addresses:
            del self.by_address[address]

    def _take(self, name: str) -> None:
        for _ in range(_BURST):
            port = self.ports.get(name)
            if port is None:
                return
            try:
                packet = os.read(port.fd, _PACKET_MAX)
            except BlockingIOError:
                return
            self._send(port, packet)

    def _send(self, source: Port, packet: bytes) -> None:
        version = packet[0] >> 4
        address = packet[16:20] if version == 4 else packet[24:40]  # noqa: PLR2004 - versions of IP
        name = self.by_address.get(address)
        if name is None:
            return  # for all hosts (neighbor discovery), or for none
        now, target = time.monotonic(), self.ports[name]
        for at in source.ways["out"].pass_at(now, len(packet)):
            for arrival in target.ways["in"].pass_at(at, len(packet)):
                if arrival <= now:
                    _write(target.fd, packet)
                else:
                    self.number += 1
                    heapq.heappush(self.flying, (arrival, self.number, name, packet))

    def _land(self, now: float) -> None:
        while self.flying and self.flying[0][0] <= now:
            _, _, name, packet = heapq.heappop(self.flying)
            port = self.ports.get(name)
            if port is not None:
                _write(port.fd, packet)


def _write(fd: int, packet: bytes) -> None:
    try:
        os.write(fd, packet)
    except OSError:
        return  # the device is down, so the packet is lost


def _packed(address: str) -> bytes:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    return socket.inet_pton(family, address)


def _device_in(pid: int) -> int:
    """Make a TUN device in the network of a process; return its file descriptor."""
    ours = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    theirs = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    _enter(theirs)
    try:
        fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        fcntl.ioctl(fd, _SET_DEVICE, struct.pack("16sH22x", DEVICE.encode(), _TUN | _NO_HEADER))
        return fd
    finally:
        _enter(ours)
        os.close(ours)
        os.close(theirs)


def _enter(fd: int) -> None:
    if _LIBC.setns(fd, _NEW_NETWORK) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


if __name__ == "__main__":
    Switch(int(sys.argv[1])).run()
