"""Hosts as users write them, in `--host` words and in hostfiles, read into `Host`.

The forms of Open MPI, MPICH and SCOOP are all read:

    alice                    the workers are as many as its cores
    alice 4  alice:4         4 workers
    alice slots=4 max_slots=8
    ann@alice:4              another user
    [fe80::1]:4              an IPv6 address
    node[01-16]  node[1-3,7]:8
    bob address=10.0.0.7 port=2222 python=/opt/py/bin/python prolog="module load python" tunnel=yes

A `#` at the beginning of a word starts a comment. Lines for the same host add up: numbers are
added, and a line without a number beside others counts as one worker, as in the node files of batch
systems. The name of a host in the run is its name in the hostfile. The same address and user under
two names is one host, with the first name.
"""

from __future__ import annotations

import ipaddress
import os
import re
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Final

import msgspec

from resilient_scoop.errors import UsageError

WORKERS_MAX: Final = 4096
"""Workers of one host; a larger number is taken for a mistake."""
HOSTS_MAX: Final = 4096
"""Hosts that one range may name, and hosts of a run."""

NAME_CHARS_MAX: Final = 63
"""What the broker takes for the name of a host."""

_NAME: Final = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?")
_IPV6: Final = re.compile(r"[0-9A-Fa-f]*:[0-9A-Fa-f:.]*(%\w+)?")
_VERSION_6: Final = 6
_RANGE: Final = re.compile(r"\[(\d+(?:-\d+)?(?:,\d+(?:-\d+)?)*)\]")
_USER: Final = re.compile(r"[^\s@:/\[\]-][^\s@:/\[\]]*")
_BOOLEANS: Final = {"yes": True, "true": True, "1": True, "no": False, "false": False, "0": False}
_LOCAL: Final = "local"
_LOCAL_NAMES: Final = ("localhost", "127.0.0.1", "::1")
_SAME_NAME: Final = {"workers": "slots", "max-slots": "max_slots", "max_workers": "max_slots"}
_KEYS: Final = ("slots", "max_slots", "user", "address", "port", "python", "prolog", "tunnel")


class Host(msgspec.Struct, frozen=True):
    """One host of a run."""

    name: str  # the name of the host in the run
    address: str = ""  # the address for connections, if not the name
    user: str = ""
    port: int | None = None
    workers: int | None = None  # None: as many workers as cores
    max_workers: int | None = None
    python: str = ""
    prolog: str = ""  # a shell command that runs first, such as `module load python`
    tunnel: bool | None = None  # None: the setting of the run
    where: str = ""  # "hosts.txt, line 7", for messages

    @property
    def target(self) -> str:
        """The name or address that SSH is told."""
        return self.address or self.name

    @property
    def alias(self) -> str:
        """What SSH's configuration may call it."""
        return self.address if self.name == _name_of(self.address) else self.name

    @property
    def is_local(self) -> bool:
        """Whether it is this machine, by a name that says so; a host with a way to reach it is not."""
        names = (*_LOCAL_NAMES, os.uname().nodename)
        return self.name in names and not (self.address or self.user or self.port)


class Shares(msgspec.Struct, frozen=True):
    """How a total of workers is split."""

    workers: dict[str, int | None]  # by name of host; None: its cores, at most its limit
    limits: dict[str, int] = {}  # of hosts whose cores are not known yet
    missing: int = 0  # workers that no host has room for

    def is_used(self, host: str) -> bool:
        """Return whether a host gets a worker."""
        return self.workers[host] != 0 and self.limits.get(host) != 0


class _Line(msgspec.Struct, frozen=True):
    """One mention of a host, before equal ones are added up."""

    host: Host
    slots: int | None


def read_hosts(words: Sequence[str] = (), text: str = "", file: str = "hostfile") -> list[Host]:
    """Return the hosts of `--host` words and of a hostfile's text, in order, each once.

    Raises:
        UsageError: something is not a host; the text names the word, or file and line.
    """
    lines = [
        line
        for word in words
        for part in _split_commas(word)
        for line in _read(part, f"--host {part}")
    ]
    for number, row in enumerate(text.splitlines(), 1):
        lines += _read(row, f"{file}, line {number}")
    hosts = _added_up(lines)
    if len(hosts) > HOSTS_MAX:
        raise UsageError(f"{len(hosts)} hosts are named; a run has at most {HOSTS_MAX}")
    return hosts


def duplicates(hosts: Iterable[Host], resolve: Callable[[Host], tuple[str, int, str]]) -> list[str]:
    """Return a warning for each host that `resolve` (hostname, port, user) finds under an earlier name."""
    seen: dict[tuple[str, int, str], Host] = {}
    found = []
    for host in hosts:
        key = resolve(host)
        first = seen.setdefault(key, host)
        if first is not host:
            found.append(
                f"{first.name} and {host.name} are the same host for SSH, {key[2]}@{key[0]} port {key[1]}, "
                f"so it gets the workers of both; remove one of them ({host.where})"
            )
    return found


def split_total(
    total: int | None, hosts: Sequence[Host], cores: Mapping[str, int] | None = None
) -> Shares:
    """Split a total of workers over hosts; without a total, each host gets its own number.

    Hosts with a number are served first, in order, each with at most this number, then hosts whose
    `cores` are known. The rest is split evenly into limits of the others, so that they never get more
    than the total; if there are none, hosts get more than their numbers, up to their `max_workers`.
    """
    known = {
        host.name: number
        for host in hosts
        if (number := host.workers or _cores(host, cores or {})) is not None
    }
    largest = {host.name: host.max_workers for host in hosts if host.name not in known}
    if total is None:
        limits = {name: most for name, most in largest.items() if most is not None}
        return Shares({host.name: known.get(host.name) for host in hosts}, limits)
    left = total
    workers: dict[str, int | None] = {host.name: None for host in hosts}
    for host in sorted(hosts, key=lambda host: host.workers is None):
        if host.name in known:
            workers[host.name] = share = min(known[host.name], left)
            left -= share
    if largest:
        return Shares(workers, _split_evenly(left, largest))
    for host in hosts:
        have = workers[host.name] or 0
        more = min(max((host.max_workers or 0) - have, 0), left)
        workers[host.name] = have + more
        left -= more
    return Shares(workers, missing=left)


def _cores(host: Host, cores: Mapping[str, int]) -> int | None:
    found = cores.get(host.name)
    if found is None or host.max_workers is None:
        return found
    return min(found, host.max_workers)


def _split_evenly(total: int, largest: Mapping[str, int | None]) -> dict[str, int]:
    """Return the shares of hosts, each at most its largest number; what does not fit goes to the others."""
    limits: dict[str, int] = {}
    order = sorted(largest, key=lambda name: (largest[name] is None, largest[name] or 0))
    for index, name in enumerate(order):
        most = largest[name]
        share = -(-total // (len(order) - index))  # rounded up
        limits[name] = share if most is None else min(share, most)
        total -= limits[name]
    return {name: limits[name] for name in largest}


def _split_commas(word: str) -> list[str]:
    """Split `alice:4,bob` at commas outside of brackets and quotes."""
    parts = re.split(r""",(?=(?:[^\[\]"']|\[[^\]]*\]|"[^"]*"|'[^']*')*$)""", word)
    return [part for part in parts if part.strip()]


def _read(row: str, where: str) -> Iterator[_Line]:
    words = _words(row, where)
    if not words:
        return
    name, user, slots = _first_word(words[0], where)
    fields = {"user": user} if user else {}
    rest = words[1:]
    if rest and rest[0].isdigit():
        if slots is not None:
            raise _wrong(where, f"{words[0]!r} and {rest[0]!r} both give a number of workers")
        slots = _number(rest[0], "workers", WORKERS_MAX, where)
        rest = rest[1:]
    fields |= _options(rest, where)
    if "slots" in fields:
        if slots is not None:
            raise _wrong(where, "the number of workers is given twice")
        slots = _number(fields["slots"], "slots", WORKERS_MAX, where)
    names = _expanded(name, where)
    if len(names) > 1 and "address" in fields:
        raise _wrong(where, f"{name!r} names {len(names)} hosts, which cannot share one address")
    for each in names:
        yield _Line(_host(each, fields, slots, where), slots)


def _words(row: str, where: str) -> list[str]:
    lexer = shlex.shlex(row, posix=True, punctuation_chars=False)
    lexer.whitespace_split = True
    lexer.commenters = ""
    lexer.escape = ""
    found = []
    try:
        for word in lexer:
            if word.startswith("#"):
                break
            found.append(word)
    except ValueError:
        raise _wrong(where, f"a quote is not closed in {row.strip()!r}") from None
    return found


def _first_word(word: str, where: str) -> tuple[str, str, int | None]:
    """Return name, user and number of `user@name:N`."""
    user, at, rest = word.rpartition("@")
    if at and not _USER.fullmatch(user):
        raise _wrong(where, f"{user!r} is not a user's name")
    bracket = re.fullmatch(r"\[([^\]]*:[^\]]*)\](?::(.*))?", rest)
    if bracket:
        if not _IPV6.fullmatch(bracket[1]):
            raise _wrong(where, f"{bracket[1]!r} is not an IPv6 address")
        name, number = bracket[1], bracket[2]
    elif rest.count(":") > 1 and _is_ipv6(rest):
        raise _wrong(where, f"write an IPv6 address in brackets: [{rest}]")
    elif rest.count(":") > 1:
        raise _wrong(where, f"{rest!r} is not a host; write HOST:N, or an IPv6 address in brackets")
    else:
        name, colon, tail = rest.partition(":")
        number = tail if colon else None
        _check_name(name, where)
    slots = None if number is None else _number(number, "workers", WORKERS_MAX, where)
    return name, user, slots


def _name_of(ipv6: str) -> str:
    """Return the name of a host that is given by an IPv6 address: a name in a run has no colons."""
    name = re.sub(r"[:%]", "-", ipv6)
    return f"{'0' * name.startswith('-')}{name}{'0' * name.endswith('-')}"


def _is_ipv6(text: str) -> bool:
    try:
        return ipaddress.ip_address(text).version == _VERSION_6
    except ValueError:
        return False


def _check_name(name: str, where: str) -> None:
    if name == _LOCAL:
        raise _wrong(
            where,
            f"{name!r} is the run's name of its own host; write another one, and address={name}",
        )
    if not _NAME.fullmatch(_RANGE.sub("0", name)):
        raise _wrong(where, f"{name!r} is not the name of a host")


def _expanded(name: str, where: str) -> list[str]:
    match = None if ":" in name else _RANGE.search(name)
    if match is None:
        return [name]
    if len(_RANGE.findall(name)) > 1:
        raise _wrong(where, f"{name!r} has more than one range; write a line for each")
    found: list[str] = []
    for part in match[1].split(","):
        low, _, high = part.partition("-")
        high = high or low
        if int(high) < int(low) or int(high) - int(low) >= HOSTS_MAX:
            raise _wrong(where, f"[{part}] is not a range of at most {HOSTS_MAX} numbers")
        width = len(low) if low.startswith("0") else 0
        found += [
            f"{name[: match.start()]}{number:0{width}}{name[match.end() :]}"
            for number in range(int(low), int(high) + 1)
        ]
    return found


def _options(words: Sequence[str], where: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for word in words:
        key, equals, value = word.partition("=")
        key = _SAME_NAME.get(key.lower(), key.lower())
        if not equals:
            raise _wrong(
                where, f"{word!r} is not understood; after the host come a number or KEY=VALUE"
            )
        if key not in _KEYS:
            raise _wrong(where, f"there is no {word!r}; known are {', '.join(_KEYS)}")
        if key in found:
            raise _wrong(where, f"{key}= is given twice")
        if not value:
            raise _wrong(where, f"{key}= has no value")
        found[key] = value
    return found


def _host(name: str, fields: Mapping[str, str], slots: int | None, where: str) -> Host:
    largest = fields.get("max_slots")
    max_workers = _number(largest, "max_slots", WORKERS_MAX, where) if largest else None
    if max_workers is not None and slots is not None and max_workers < slots:
        raise _wrong(where, f"max_slots={max_workers} is less than the number of workers, {slots}")
    user = fields.get("user", "")
    if user and not _USER.fullmatch(user):
        raise _wrong(where, f"{user!r} is not a user's name")
    address = fields.get("address", "").strip("[]")
    if address and not (_NAME.fullmatch(address) or _IPV6.fullmatch(address)):
        raise _wrong(where, f"{address!r} is not an address")
    tunnel = fields.get("tunnel")
    if tunnel is not None and tunnel.lower() not in _BOOLEANS:
        raise _wrong(where, f"tunnel={tunnel} is neither yes nor no")
    port = fields.get("port")
    if len(name) > NAME_CHARS_MAX:
        raise _wrong(
            where,
            f"{name!r} has more than {NAME_CHARS_MAX} characters; write a shorter name, and address={name}",
        )
    if ":" in name and name not in _LOCAL_NAMES:
        name, address = _name_of(name), address or name
    return Host(
        name=name,
        address=address,
        user=user,
        port=_number(port, "port", 65535, where) if port else None,
        workers=slots,
        max_workers=max_workers,
        python=fields.get("python", ""),
        prolog=fields.get("prolog", ""),
        tunnel=None if tunnel is None else _BOOLEANS[tunnel.lower()],
        where=where,
    )


def _number(text: str, what: str, largest: int, where: str) -> int:
    if not re.fullmatch(r"\d{1,9}", text, re.ASCII) or not 1 <= int(text) <= largest:
        raise _wrong(where, f"{what} is {text!r}, not a number from 1 to {largest}")
    return int(text)


def _wrong(where: str, what: str) -> UsageError:
    return UsageError(f"{where}: {what}")


def _added_up(lines: Sequence[_Line]) -> list[Host]:
    users: dict[str, _Line] = {}
    groups: dict[tuple[str, str, int | None], list[_Line]] = {}
    for line in lines:
        host = line.host
        first = users.setdefault(host.name, line).host
        if _identity(first) != _identity(host):
            raise _wrong(
                host.where,
                f"{host.name} is listed with another user, address or port than in {first.where}; give it "
                f"a name of its own: `{host.name}-2 address={host.target}`",
            )
        groups.setdefault(_identity(host), []).append(line)
    return [_merged(group) for group in groups.values()]


def _identity(host: Host) -> tuple[str, str, int | None]:
    return host.target, host.user, host.port


def _merged(lines: Sequence[_Line]) -> Host:
    first = lines[0].host
    if len(lines) == 1:
        return first
    for line in lines[1:]:
        for field in ("python", "prolog", "tunnel"):
            have, more = getattr(first, field), getattr(line.host, field)
            if more not in {have, "", None} and have not in {"", None}:
                raise _wrong(
                    line.host.where,
                    f"{line.host.name} has {field}={more}, and {field}={have} in {first.where}; remove one",
                )
    largest = [line.host.max_workers for line in lines if line.host.max_workers is not None]
    workers = sum(line.slots or 1 for line in lines)
    if workers > WORKERS_MAX:
        raise _wrong(
            lines[-1].host.where, f"{first.name} has {workers} workers, more than {WORKERS_MAX}"
        )
    return msgspec.structs.replace(
        first,
        workers=workers,
        max_workers=max(workers, sum(largest)) if largest else None,
        python=next((line.host.python for line in lines if line.host.python), ""),
        prolog=next((line.host.prolog for line in lines if line.host.prolog), ""),
        tunnel=next((line.host.tunnel for line in lines if line.host.tunnel is not None), None),
    )
