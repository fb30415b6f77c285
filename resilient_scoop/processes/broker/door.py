"""The door through which agents of other hosts, and the workers behind them, reach the broker.

  DR1  A message comes from a host whose key was enrolled, and counts as a message of that host.
  DR2  A routing id and the identity of a process belong to the host that used them first.
  DR3  The key of a ticket opens nothing but an enrolment, and a ticket counts as used before its answer.
  DR4  A revoked host has no connection, and gets none.

Every message begins with its channel: `E` an enrolment (`wire.enrol`), `F` a request about files
(`wire.files`), `M` a message of a process, after the identity of that process (`wire.messages`). To
an agent, `S` is a message whose large frames it has received before, and its `L` reports that it
lacks one (`transport.large_frames`).
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from resilient_scoop._version import __version__
from resilient_scoop.errors import RunStoppedError
from resilient_scoop.ids import PeerId
from resilient_scoop.processes.broker.files import FileService
from resilient_scoop.processes.starting import LOCAL
from resilient_scoop.runs.json_text import one_line
from resilient_scoop.transport.large_frames import LARGE_BYTES, SentFrames
from resilient_scoop.transport.remote import Parcel, RemoteRouter
from resilient_scoop.transport.tickets import KeyRing, shut_door
from resilient_scoop.wire import enrol

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence

    from resilient_scoop.processes.starting import ChildSettings
    from resilient_scoop.transport.sockets import RouterSocket

ENROL, FILES, MESSAGE, SHORT, MISSING = b"E", b"F", b"M", b"S", b"L"
_REPORTED_MAX: Final = 10
"""Refusals that are reported, of each kind; the others are counted."""
_BIND_TRIES: Final = 5
_IDENTITY_BYTES_MAX: Final = 32
_HOST: Final = re.compile(r"[\w][\w.-]{0,62}")
_PRUNE_MIN: Final = 256
_KEY_CHARS: Final = 40


class GuestRoute(NamedTuple):
    """A process of another host: the host's name, and the connection that leads to it."""

    host: str
    routing: bytes


class RemoteDoor:
    """The remote end of a broker."""

    def __init__(
        self, settings: ChildSettings, socket: RouterSocket, tell_user: Callable[[str], None],
        wake: Callable[[], None], joined: Callable[[str], None],
    ) -> None:  # fmt: skip
        """Listen, on the port of the broker before if there was one; `joined` is told of enrolled hosts.

        Raises:
            RunStoppedError: no port can be had.
        """
        self._tell_user = tell_user
        self._joined = joined
        self._local = socket
        self._run_id = settings.run_id
        self._run_dir = run_dir = Path(settings.run_dir)
        self.ring = KeyRing(run_dir)
        self._addresses = settings.options.listen or ("*",)
        self._router = self._listen(self._addresses)
        self.ring.open_door(self._router.port)
        socket.join(self._router)
        self.files = FileService(run_dir, wake, adopt=settings.adopt)
        self._guests: dict[PeerId, GuestRoute] = {}  # by identity
        self._routings: dict[bytes, str] = {}  # routing id -> key
        self._sent: dict[bytes, SentFrames] = {}  # by routing id
        self.refused: Counter[str] = Counter()  # by kind

    def _listen(self, addresses: Sequence[str]) -> RemoteRouter:
        """Listen where the last broker did, so that agents find this one."""
        last = self.ring.last_port
        reason = ""
        for port in (*[last] * _BIND_TRIES, 0) if last else (0,):
            try:
                return RemoteRouter(self.ring.server.secret, self._admit, addresses, port)
            except OSError as error:
                reason = error.strerror or str(error)
        raise RunStoppedError(
            self._run_id,
            f"the broker cannot listen on {', '.join(addresses)} for other hosts: {reason}",
        )

    def _admit(self, key: str, address: str) -> str | None:
        """Decide whether a key is admitted; return why it is refused."""
        if key in self.ring.hosts or self.ring.ticket_of(key) is not None:
            return None
        why = self.ring.gone.get(key) or self.ring.why_no_ticket(key)
        self._refuse("connection", f"a connection from {address.removeprefix('::ffff:')}: {why}")
        return why

    def _refuse(self, kind: str, what: str) -> None:
        self._report(kind, f"refused {what}")

    def _report(self, kind: str, text: str) -> None:
        self.refused[kind] += 1
        if self.refused[kind] <= _REPORTED_MAX:
            last = (
                "; more of this kind are only counted"
                if self.refused[kind] == _REPORTED_MAX
                else ""
            )
            self._tell_user(f"{text}{last}")

    def receive(self) -> Iterator[tuple[PeerId, list[bytes], str]]:
        """Yield messages of processes: identity, frames, host."""
        for parcel in self._router.receive():
            channel, *frames = parcel.frames
            host = self.ring.hosts.get(parcel.key)
            if host is None:
                self._strange(parcel, channel, frames)
            elif self._routings.setdefault(parcel.routing, parcel.key) != parcel.key:
                self._refuse(
                    "identity", f"a message of {host} under the connection of another host"
                )
            elif channel == MESSAGE:
                peer = self._bound(parcel, host, frames)
                if peer is not None:
                    yield peer, frames[1:], host
            elif channel == MISSING and len(frames) == 1:
                if parcel.routing in self._sent:
                    self._sent[parcel.routing].forget(frames[0])
            elif channel == FILES and len(frames) == 1:
                try:
                    self.files.ask(parcel.routing, host, frames[0])
                except msgspec.MsgspecError as error:
                    self._refuse("request", f"a request of {host} about files: {error}")
            else:
                self._refuse("channel", f"a message of {host} that is of no known kind")

    def _bound(self, parcel: Parcel, host: str, frames: list[bytes]) -> PeerId | None:
        """Return the sender of a message, if it is a process of that host (DR2)."""
        if not frames or not 0 < len(frames[0]) <= _IDENTITY_BYTES_MAX:
            self._refuse("identity", f"a message of {host} without the identity of a process")
            return None
        peer = PeerId(frames[0])
        guest = self._guests.get(peer)
        if guest is None or guest.host == host:
            if guest is None or guest.routing != parcel.routing:
                self._guests[peer] = GuestRoute(host, parcel.routing)
            return peer
        self._refuse("identity", f"a message of {host} in the name of a process of {guest.host}")
        return None

    def _strange(self, parcel: Parcel, channel: bytes, frames: list[bytes]) -> None:
        """Handle a message under the key of a ticket, or of a host that was cut off since (DR3)."""
        stub = self.ring.ticket_of(parcel.key)
        if stub is None or channel != ENROL or len(frames) != 1:
            self._refuse("key", "a message under a key that is not let in")
            self._router.cut(parcel.routing)
            return
        try:
            request = enrol.decode_request(frames[0])
        except msgspec.MsgspecError as error:
            self._refuse("enrolment", f"an enrolment that cannot be read: {error}")
            return
        why = _unfit(request)
        host = one_line(stub.host or request.host)
        if not why and (not _HOST.fullmatch(host) or host == LOCAL):
            why = f"{host!r} can't be the name of a host: letters, digits, '.', '-', '_'; not {LOCAL!r}"
        if why:
            self._refuse("enrolment", f"the agent of {host}: {why}")
            self._answer(parcel, enrol.NotEnrolled(why))
            return
        try:
            self.ring.use(stub)
            before = self.ring.enroll(request.key.decode("ascii"), host)
        except OSError as error:
            why = (
                f"the run's folder cannot be written to ({error.strerror or error}): free some space "
                "there, and start the host again"
            )
            self._report("failure", f"the agent of {host} is not let in: {why}")
            self._answer(parcel, enrol.NotEnrolled(why))
            return
        for key in before:
            self._cut_key(key)
        self._joined(host)
        self._answer(parcel, enrol.Enrolled(host, self.ring.numbers[host]))

    def _answer(self, parcel: Parcel, message: enrol.Enrolled | enrol.NotEnrolled) -> None:
        self._router.send(parcel.routing, [ENROL, enrol.encode(message)])
        self._router.forget(parcel.routing)  # its ticket is used: the agent connects again

    def is_guest(self, peer: PeerId) -> bool:
        """Return whether a process is reached through this door."""
        return peer in self._guests

    def send(self, peer: PeerId, frames: Sequence[bytes]) -> bool:
        """Send to a process of another host; return False when its host has no connection."""
        routing = self._guests[peer].routing
        if any(len(frame) >= LARGE_BYTES for frame in frames):
            sent = self._sent.setdefault(routing, SentFrames())
            positions, shortened = sent.shorten(frames)
            if positions:
                return self._router.send(routing, [SHORT, peer, positions, *shortened])
        return self._router.send(routing, [MESSAGE, peer, *frames])

    def pass_files(self) -> None:
        """Send what the thread of the files has answered, and report what it refused."""
        for answer in self.files.answers():
            self._router.send(answer.routing, [FILES, answer.frame])
        while self.files.refused:
            host, what = self.files.refused.popleft()
            self._refuse("request", f"a request of {host} for {what}")
        while self.files.failed:
            self._report("failure", self.files.failed.popleft())
        while self.files.notes:
            host, text = self.files.notes.popleft()
            self._tell_user(text if text.startswith(host) else f"{host}: {text}")

    def shut_out(self, host: str, why: str) -> None:
        """Cut a host off at once (DR4)."""
        keys = self.ring.keys_of(host)
        try:
            self.ring.shut_out(host, why)
        except OSError as error:
            self._tell_user(
                f"host {host} is cut off, but that could not be written down "
                f"({error.strerror or error}): a new broker would let it in; free some space, then: "
                f"rscoop revoke {self._run_id} {host}"
            )
        for key in keys:
            self._cut_key(key)

    def say_goodbye(self, host: str, why: str) -> None:
        """Tell the agent of a host that its key is refused; it then ends."""
        keys = {key for key, name in self.ring.hosts.items() if name == host}
        for routing in [each for each, of in self._routings.items() if of in keys]:
            self._router.send(routing, [ENROL, enrol.encode(enrol.NotEnrolled(why))])

    def rekey(self) -> None:
        """Cut all hosts off, and listen again with a new key."""
        for host in set(self.ring.hosts.values()):
            self.shut_out(host, "the run's keys were renewed")
        self.ring.renew()
        self._local.part(self._router)
        self._router.close()
        self._routings.clear()
        self._sent.clear()
        self._router = self._listen(self._addresses)
        self.ring.open_door(self._router.port)
        self._local.join(self._router)

    def _cut_key(self, key: str) -> None:
        for routing in [each for each, of in self._routings.items() if of == key]:
            del self._routings[routing]
            self._sent.pop(routing, None)
            self._router.cut(routing)

    def prune(self, known: Collection[PeerId]) -> None:
        """Forget processes and connections that have ended; `known` are the others."""
        if len(self._guests) > 2 * len(known) + _PRUNE_MIN:
            self._guests = {peer: guest for peer, guest in self._guests.items() if peer in known}

    def close(self) -> None:
        """Close; incomplete files are not needed any more."""
        shut_door(self._run_dir)
        self._local.part(self._router)
        self.files.close(remove=True)
        self._router.close()


def _unfit(request: enrol.Enroll) -> str:
    """Return why an agent cannot take part: the difference, with both values, and the cure."""
    here = f"{sys.version_info[0]}.{sys.version_info[1]}"
    there = ".".join(request.python.split(".")[:2])
    if there != here:
        return (
            f"it runs Python {request.python} and the run Python {here}: results could not be read on "
            f"both sides. Name a Python {here} of that host (--python, or python= in the hostfile)"
        )
    if request.version != __version__:
        return (
            f"it has resilient_scoop {request.version} and the run {__version__}: install the same "
            "version there"
        )
    if request.byteorder != sys.byteorder:
        return f"it is a {request.byteorder}-endian machine, and this one is {sys.byteorder}-endian"
    if len(request.key) != _KEY_CHARS:
        return "its key is no CURVE key"
    return ""
