"""Keys of a run that others may connect to: the broker's own, tickets, and those of enrolled agents.

    <run>/keys/           0700
        server            the broker's secret key; the same in every epoch, so that agents find it again
        port              where it listened last, for the same reason
        door.json         where it listens now, and its public key (`BrokerAddress`)
        enrolled          a line of JSON for each key that was enrolled or revoked
    <run>/tickets/        0700
        <name>            a ticket that may still be used (`_OpenTicket`); `<name>.used`: one that was

A ticket holds a key pair of its own, which may send one message only: `wire.enrol.Enroll`, with a fresh
key that its holder has made. So the key that an agent works under never leaves its host. Whoever may
write to the run folder can issue tickets, and no one else. Times are those of the kernel since its boot,
since the clock on the wall may be changed.
"""

from __future__ import annotations

import errno
import hashlib
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from resilient_scoop.adapters.synced_files import sync_folder, write_synced
from resilient_scoop.errors import PlaceBusyError
from resilient_scoop.transport.remote import KeyPair, make_keys, public_half

if TYPE_CHECKING:
    from collections.abc import Sequence

KEYS: Final = "keys"
TICKETS: Final = "tickets"
_SERVER, _PORT, _DOOR, _ENROLLED = "server", "port", "door.json", "enrolled"
_USED: Final = ".used"
_NAME_CHARS: Final = 32
_LOOK_S: Final = 0.02


class BrokerAddress(msgspec.Struct, frozen=True):
    """The address at which a broker listens."""

    port: int
    key: str  # public, Z85


class Ticket(msgspec.Struct, frozen=True, kw_only=True):
    """The data that an agent gets before it starts: one line of JSON, secret."""

    run_id: str
    run_key: str  # distinguishes the run from others with the same id
    id: str
    host: str  # its name in the run; empty: as the host calls itself
    server: str  # the broker's public key
    public: str  # of the ticket
    secret: str
    addresses: list[str]  # HOST:PORT of the broker, the best first
    extra: dict[str, Any] = {}  # what the agent needs for its processes


class _OpenTicket(msgspec.Struct, frozen=True, kw_only=True):
    """The broker's record of a ticket; it contains nothing that opens a connection."""

    id: str
    host: str
    boot: str
    until_s: float  # seconds since the boot
    uses: int = 1


class Enrolment(msgspec.Struct, frozen=True):
    """A key that was enrolled for a host, or, with `out`, was revoked."""

    key: str
    host: str
    out: str = ""  # why


def issue(  # noqa: PLR0913 - as a ticket
    run_dir: Path,
    host: str,
    *,
    run_key: str,
    valid_s: float,
    uses: int = 1,
    addresses: Sequence[str] = (),
    extra: dict[str, Any] | None = None,
) -> bytes:
    """Make a ticket; return what its holder needs, one line of JSON text, which is secret.

    `addresses`: names or addresses of this host, as the holder's host reaches it; without a port, the
    broker's is added.

    Raises:
        PlaceBusyError: the broker does not listen yet.
    """
    door = door_of(run_dir)
    keys = make_keys()
    public = keys.public.decode()
    folder = make_folder(run_dir / TICKETS)
    name = _name(public)
    stub = _OpenTicket(id=name, host=host, boot=_boot(), until_s=_since_boot() + valid_s, uses=uses)
    write_synced(folder / name, msgspec.json.encode(stub))
    ticket = Ticket(
        run_id=run_dir.name, run_key=run_key, id=name, host=host, server=door.key, public=public,
        secret=keys.secret.decode(), addresses=[_with_port(each, door.port) for each in addresses],
        extra=extra or {},
    )  # fmt: skip
    return msgspec.json.encode(ticket)


def read_ticket(line: bytes) -> Ticket:
    """Return the ticket of a line; raises msgspec.MsgspecError if it is none."""
    return msgspec.json.decode(line, type=Ticket)


def read_door(run_dir: Path) -> BrokerAddress | None:
    """Return where the broker of a run listens; None if it does not."""
    try:
        return msgspec.json.decode((run_dir / KEYS / _DOOR).read_bytes(), type=BrokerAddress)
    except FileNotFoundError:
        return None


def door_of(run_dir: Path, *, wait_s: float = 0.0) -> BrokerAddress:
    """Return where the broker of a run listens, as soon as it does.

    Raises:
        PlaceBusyError: it did not within that time.
    """
    until = time.monotonic() + wait_s
    while (door := read_door(run_dir)) is None:
        if time.monotonic() >= until:
            raise PlaceBusyError("the broker does not listen for other hosts yet", 1.0)
        time.sleep(_LOOK_S)
    return door


def shut_door(run_dir: Path) -> None:
    """Remove the address of the broker, which has stopped listening."""
    (run_dir / KEYS / _DOOR).unlink(missing_ok=True)


def _with_port(address: str, port: int) -> str:
    if address.startswith("["):
        return address if "]:" in address else f"{address}:{port}"
    if address.count(":") > 1:
        return f"[{address}]:{port}"
    return address if ":" in address else f"{address}:{port}"


def make_folder(folder: Path) -> Path:
    """Make a folder that only this user may read."""
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def _name(public: str) -> str:
    """Return the file name of a ticket: it says nothing about the key."""
    return hashlib.sha256(public.encode()).hexdigest()[:_NAME_CHARS]


def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()


def _since_boot() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class KeyRing:
    """The keys of a broker: its own, enrolled ones, and those of tickets."""

    def __init__(self, run_dir: Path) -> None:
        self._run_dir = run_dir
        self._folder = make_folder(run_dir / KEYS)
        self.server = self._own_key()
        self.hosts: dict[str, str] = {}  # enrolled key -> host
        self.gone: dict[str, str] = {}  # key -> why it was revoked
        self.numbers: dict[str, int] = {}  # host -> its number in the order of enrolment, from 1
        self._unwritten: list[Enrolment] = []  # lines that count and are not on disk yet
        self._load()

    def _own_key(self) -> KeyPair:
        path = self._folder / _SERVER
        try:
            secret = path.read_bytes()
        except FileNotFoundError:
            secret = make_keys().secret
            write_synced(path, secret)
        return KeyPair(public_half(secret), secret)

    def _load(self) -> None:
        try:
            lines = (self._folder / _ENROLLED).read_bytes().splitlines()
        except FileNotFoundError:
            return
        for line in lines:
            try:
                self._take(msgspec.json.decode(line, type=Enrolment))
            except msgspec.MsgspecError:
                continue  # incomplete after a power cut, so nothing depends on it

    def _take(self, each: Enrolment) -> None:
        if each.out:
            self.hosts.pop(each.key, None)
            self.gone[each.key] = each.out
        else:
            self.gone.pop(each.key, None)
            self.hosts[each.key] = each.host
            self.numbers.setdefault(each.host, len(self.numbers) + 1)

    def _write(self, *enrolments: Enrolment) -> None:
        """Write a line before it counts; raises OSError if that is not possible."""
        path = self._folder / _ENROLLED
        lines = [b"\n" + msgspec.json.encode(e) + b"\n" for e in (*self._unwritten, *enrolments)]
        text = b"".join(lines)
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        fd = os.open(path, flags, 0o600)
        try:
            if os.write(fd, text) != len(text):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
            os.fsync(fd)
        finally:
            os.close(fd)
        sync_folder(self._folder)
        self._unwritten = []
        for each in enrolments:
            self._take(each)

    def open_door(self, port: int) -> None:
        """Write the address at which the broker listens."""
        door = BrokerAddress(port, self.server.public.decode())
        write_synced(self._folder / _PORT, b"%d" % port)
        write_synced(self._folder / _DOOR, msgspec.json.encode(door))

    @property
    def last_port(self) -> int:
        """The port of the broker before; 0 if there was none."""
        try:
            return int((self._folder / _PORT).read_bytes())
        except (FileNotFoundError, ValueError):
            return 0

    def enroll(self, key: str, host: str) -> list[str]:
        """Enroll a key for a host; return the keys of that host that are revoked by this.

        Raises: OSError: this cannot be written; nothing has changed.
        """
        before = [each for each, name in self.hosts.items() if name == host and each != key]
        why = "a newer key of this host has taken its place"
        self._write(*(Enrolment(each, host, why) for each in before), Enrolment(key, host))
        return before

    def shut_out(self, host: str, why: str) -> list[str]:
        """Revoke the keys of a host; return them.

        Raises: OSError: this cannot be written yet. It counts, and is written with the next line.
        """
        keys = self.keys_of(host)
        for each in keys:
            self._take(Enrolment(each, host, why))
            self._unwritten.append(Enrolment(each, host, why))
        if self._unwritten:
            self._write()
        return keys

    def keys_of(self, host: str) -> list[str]:
        """Return the enrolled keys of a host."""
        return [each for each, name in self.hosts.items() if name == host]

    def renew(self) -> None:
        """Replace the broker's own key, and void all tickets."""
        for ticket in (self._run_dir / TICKETS).glob("*"):
            ticket.unlink(missing_ok=True)
        (self._folder / _SERVER).unlink(missing_ok=True)
        self.server = self._own_key()

    def ticket_of(self, key: str) -> _OpenTicket | None:
        """Return the ticket that has a key, if it may be used now."""
        stub = self._stub(_name(key))
        if stub is None or stub.boot != _boot() or _since_boot() > stub.until_s:
            return None
        return stub

    def _stub(self, name: str) -> _OpenTicket | None:
        try:
            return msgspec.json.decode(
                (self._run_dir / TICKETS / name).read_bytes(), type=_OpenTicket
            )
        except (FileNotFoundError, msgspec.MsgspecError):
            return None

    def why_no_ticket(self, key: str) -> str:
        """Return why a key is no ticket, for display."""
        name = _name(key)
        if (self._run_dir / TICKETS / f"{name}{_USED}").exists():
            return "its ticket was used before"
        if self._stub(name) is not None:
            return "its ticket has expired"
        return "its key is not known here"

    def use(self, stub: _OpenTicket) -> None:
        """Record that a ticket was used once, durably."""
        folder = self._run_dir / TICKETS
        path = folder / stub.id
        if stub.uses > 1:
            write_synced(
                path, msgspec.json.encode(msgspec.structs.replace(stub, uses=stub.uses - 1))
            )
        else:
            path.rename(folder / f"{stub.id}{_USED}")
            sync_folder(folder)
