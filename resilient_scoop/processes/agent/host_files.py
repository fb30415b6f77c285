"""An agent's files: what the workers of its host need of the run folder, and what they write into it.

A file is sent to a host only once: if a process wants a file that is being sent, it waits together
with the others. If this host has the file under another name, only the first chunk is sent, which
contains its SHA-256. The folder here is a cache of the run's. When it has grown to
`CACHE_BYTES_MAX`, or the disk has little space left, the files that were used longest ago are
removed; they can be fetched again, and processes that have them open keep them.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import socket
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, assert_never

import msgspec

from resilient_scoop.adapters.free_space import NO_SPACE, free_bytes
from resilient_scoop.core.transfers import Download, TransferState, Upload
from resilient_scoop.processes.kept_code import BEGAN
from resilient_scoop.processes.kept_code import FOLDER as KEPT
from resilient_scoop.runs.audit_findings import name_of
from resilient_scoop.transport.sockets import socket_path
from resilient_scoop.wire import files as wire
from resilient_scoop.wire import local_files as local

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    Send = Callable[[bytes], None]

CACHE_BYTES_MAX: Final = 8 << 30
_FREE_BYTES_MIN: Final = 1 << 30
_EVICT_EVERY_BYTES: Final = 64 << 20
_IN_USE_S: Final = 10.0
"""How long a file stays that was written, fetched or asked for."""
_KNOWN_MAX: Final = 1024
_NAME: Final = re.compile(r"(?:payloads/(?:arg|res)-[0-9a-f]{32}|checkpoints/[0-9a-f]{64})")
_PART: Final = ".part"
_ENDS: Final = {
    TransferState.WHOLE: 0,
    TransferState.FAILED: errno.EIO,
    TransferState.FULL: errno.ENOSPC,
}
"""The states in which an upload ends, each with the number of the error that its process gets."""
_LOG_EVERY_S: Final = 1.0
_LOG_PATIENCE_S: Final = 5.0
ASK_AGAIN_S: Final = 0.2
"""How long to wait before the code is asked for again: before there is a connection, it is not sent."""
ANSWER_S: Final = 8.0
"""How long a broker may take to name the files of the code. The agent stands still meanwhile. If it did so
for a lease (10 s), it would take that for a pause of its own, and never end for lack of a broker (G8)."""


class _Log:
    """A log of this host, and how much of it has arrived in the log on the run's host.

    An agent of this host before this one, whose folder is gone, may have written to the run's, too: then
    this one begins after that.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.is_audit = path.suffix != ".log"
        self.begins: int | None = None  # in the run's log; None: it is not known yet
        self.arrived = 0
        self.asked_at = -1e9

    def hear(self, size: int) -> None:
        """Record the size of the log on the run's host."""
        if self.begins is not None and size < self.begins + self.arrived and self.is_audit:
            self.begins = (
                size - self.arrived
            )  # a new launch has removed what belongs to earlier code
        elif self.begins is None or size < self.begins:  # less: it was removed there
            self.begins = size
        self.arrived, self.asked_at = size - self.begins, -1e9


def _looks(path: Path) -> tuple[int, int]:
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns


class AgentFiles:
    """The files of one host."""

    def __init__(self, run_dir: Path, send: Send, watch: Callable[[int], None],
                 unwatch: Callable[[int], None]) -> None:  # fmt: skip
        self._run_dir = run_dir
        self._send = send
        self._watch, self._unwatch = watch, unwatch
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
        self._socket.bind(socket_path(str(run_dir / "sock"), local.SOCKET))
        self._socket.listen(128)
        watch(self._socket.fileno())
        self._clients: dict[int, socket.socket] = {}
        self._downloads: dict[str, Download] = {}
        self._uploads: dict[str, Upload] = {}
        self._digests: dict[str, bytes] = {}  # of files on their way up
        self._known: OrderedDict[bytes, str] = OrderedDict()  # digest -> a file that had it
        self._waiting: dict[str, list[int]] = {}  # name -> clients
        self._syncs: dict[str, float] = {}  # name -> when it was asked for
        self._logs: dict[str, _Log] = {}
        self._logs_at = 0.0
        self._since_eviction = 0
        self._code: list[tuple[str, int, int]] = []
        for folder in ("payloads", "checkpoints"):
            (run_dir / folder).mkdir(mode=0o700, exist_ok=True)

    def ready(self, fds: Iterable[int], now: float) -> None:
        """Handle requests of workers."""
        for fd in fds:
            if fd == self._socket.fileno():
                self._accept()
            elif fd in self._clients:
                self._hear(fd, now)

    def _accept(self) -> None:
        with suppress(BlockingIOError):
            client, _ = self._socket.accept()
            client.settimeout(0)
            self._clients[client.fileno()] = client
            self._watch(client.fileno())

    def _hear(self, fd: int, now: float) -> None:
        try:
            message = self._clients[fd].recv(local.MESSAGE_BYTES_MAX)
        except BlockingIOError:
            return
        except ConnectionError:
            message = b""
        if not message:
            self._unwatch(fd)
            self._clients.pop(fd).close()
            for clients in self._waiting.values():
                if fd in clients:
                    clients.remove(fd)
            return
        try:
            wanted = local.decode_wanted(message)
        except msgspec.MsgspecError:
            return  # a process of user code that knows the name of our socket
        for name in wanted.names:
            if _NAME.fullmatch(name):
                self._take(fd, wanted, name, now)
            elif wanted.what != local.REMOVE:
                self._answer(fd, errno.EINVAL, f"no file of a run is named {name[:80]!r}")

    def _take(self, fd: int, wanted: local.Wanted, name: str, now: float) -> None:
        path = self._run_dir / name
        match wanted.what:
            case local.FETCH:
                if path.exists():
                    os.utime(path)
                    self._answer(fd, 0)
                    return
                self._waiting.setdefault(name, []).append(fd)
                if name not in self._downloads:
                    part = path.with_name(path.name + _PART)
                    size = part.stat().st_size if part.exists() else 0
                    self._downloads[name] = Download(name, size, now)
            case local.PUSH:
                self._waiting.setdefault(name, []).append(fd)
                if name not in self._uploads:
                    self._begin_upload(name, path, durable=wanted.durable, now=now)
            case local.SYNC:
                self._waiting.setdefault(name, []).append(fd)
                self._syncs.setdefault(name, -1e9)
            case local.REMOVE:
                path.unlink(missing_ok=True)
                self._send(wire.encode(wire.Remove(name)))
            case _:
                self._answer(fd, errno.EINVAL, "it is not known what is wanted")

    def _begin_upload(self, name: str, path: Path, *, durable: bool, now: float) -> None:
        try:
            with path.open("rb") as file:
                total = os.fstat(file.fileno()).st_size
                self._digests[name] = hashlib.file_digest(file, "sha256").digest()
                self._know(name, self._digests[name])
        except OSError as error:
            self._end(name, error.errno or errno.EIO, error.strerror or str(error))
            return
        self._uploads[name] = Upload(name, total, sync=durable, now=now)

    def _answer(self, fd: int, number: int, text: str = "") -> None:
        client = self._clients.get(fd)
        if client is not None:
            with suppress(OSError):  # it has ended
                client.send(local.encode(local.Had(number, text)))

    def _end(self, name: str, number: int = 0, text: str = "") -> None:
        """Answer the processes that wait for a file."""
        for fd in self._waiting.pop(name, ()):
            self._answer(fd, number, text)

    def hear(self, frame: bytes, now: float) -> None:
        """Handle an answer of the run's host."""
        message = wire.decode_down(frame)
        match message:
            case wire.Chunk():
                self._chunk(message, now)
            case wire.Stored():
                self._stored(message, now)
            case wire.Logged(name=name, size=size):
                log = self._logs.get(name)
                if log is not None:
                    self._logs_at = self._logs_at if log.begins is not None else 0.0
                    log.hear(size)
            case wire.Code(files=files):
                self._code = files
            case _ as never:
                assert_never(never)

    def _chunk(self, chunk: wire.Chunk, now: float) -> None:
        download = self._downloads.get(chunk.name)
        if download is None:
            return
        path = self._run_dir / chunk.name
        part = path.with_name(path.name + _PART)
        try:
            at, data = download.size, download.take(chunk, now)
            if data and at == 0 and not download.is_whole and self._link(download, part):
                download.complete()
            elif data or download.is_whole:
                with part.open("r+b" if part.exists() else "wb") as file:
                    os.pwrite(file.fileno(), data, at)
            if download.error:
                part.unlink(missing_ok=True)
                del self._downloads[chunk.name]
                self._end(chunk.name, errno.ENOENT, download.error)
            elif download.is_whole:
                self._downloaded(download, part, path, now)
        except OSError as error:
            self._downloads.pop(chunk.name, None)
            if error.errno in NO_SPACE:
                self.evict()  # for the next try
            self._end(chunk.name, error.errno or errno.EIO, error.strerror or str(error))

    def _know(self, name: str, digest: bytes) -> None:
        """Remember a file, in case the same content is needed under another name."""
        if _NAME.fullmatch(name):
            self._known[digest] = name
            self._known.move_to_end(digest)
            if len(self._known) > _KNOWN_MAX:
                self._known.popitem(last=False)

    def _link(self, download: Download, part: Path) -> bool:
        """Make a link to a file of the same content, if there is one; its digest is checked afterwards."""
        twin = self._known.pop(download.digest, None) if _NAME.fullmatch(download.name) else None
        if twin is None:
            return False
        part.unlink(missing_ok=True)
        try:
            os.link(self._run_dir / twin, part)
        except OSError:
            return False  # it was removed, or the file system has no links
        return True

    def _downloaded(self, download: Download, part: Path, path: Path, now: float) -> None:
        with part.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").digest()
        if digest != download.digest:
            part.unlink()
            download.begin_again(now)
            return
        part.rename(path)
        os.utime(path)  # the other name of a link was used earlier
        del self._downloads[download.name]
        self._know(download.name, digest)
        self._end(download.name)
        self._since_eviction += download.size
        if self._since_eviction > _EVICT_EVERY_BYTES:
            self._since_eviction = 0
            self.evict()

    def _stored(self, stored: wire.Stored, now: float) -> None:
        name = stored.name
        if name in self._syncs and (stored.done or stored.error):
            del self._syncs[name]
            self._end(name, errno.EIO if stored.error else 0, stored.error)
        upload = self._uploads.get(name)
        if upload is None:
            return
        upload.hear(stored, now)
        number = _ENDS.get(upload.state)
        if number is not None:
            del self._uploads[name], self._digests[name]
            self._end(name, number, upload.error or (os.strerror(number) if number else ""))

    def tick(self, now: float) -> None:
        """Send requests that are due."""
        for download in self._downloads.values():
            for offset in download.wanted(now):
                self._send(wire.encode(wire.Fetch(download.name, offset)))
        for name, upload in list(self._uploads.items()):
            offsets = upload.due(now)
            if offsets:
                self._send_parts(name, upload, offsets)
        for name, asked_at in self._syncs.items():
            if now - asked_at > _LOG_PATIENCE_S:
                self._syncs[name] = now
                self._send(wire.encode(wire.Sync([name])))
        if now - self._logs_at >= _LOG_EVERY_S:
            self._logs_at = now
            self.send_logs(now)

    def _send_parts(self, name: str, upload: Upload, offsets: list[int]) -> None:
        digest = self._digests[name]
        try:
            with (self._run_dir / name).open("rb") as file:
                for offset in offsets:
                    data = os.pread(file.fileno(), wire.CHUNK_BYTES, offset)
                    part = wire.Store(name, offset, upload.total, data, digest, upload.sync)
                    self._send(wire.encode(part))
        except OSError as error:
            del self._uploads[name], self._digests[name]
            self._end(name, error.errno or errno.EIO, error.strerror or str(error))

    @property
    def is_busy(self) -> bool:
        """Whether files are on their way."""
        return bool(self._downloads or self._uploads or self._syncs)

    def _growing_logs(self) -> Iterator[tuple[Path, _Log, int]]:
        """Yield the logs of which a part has not arrived, and the size of the part."""
        folder = self._run_dir / "logs"
        for path in (*folder.glob("*.log"), *folder.glob(name_of("*"))):
            log = self._logs.setdefault(path.name, _Log(path))
            missing = path.stat().st_size - log.arrived
            if missing > 0:
                yield path, log, missing

    def logs_missing(self) -> int:
        """Return how many bytes of the logs have not arrived at the run's host."""
        return sum(missing for _, _, missing in self._growing_logs())

    def send_logs(self, now: float) -> None:
        """Send what was written to logs."""
        for path, log, _ in self._growing_logs():
            if now - log.asked_at < _LOG_PATIENCE_S:
                continue
            log.asked_at = now
            if log.begins is None:
                self._send(wire.encode(wire.Log(path.name, 0, b"")))
                continue
            with path.open("rb") as file:
                data = os.pread(file.fileno(), wire.CHUNK_BYTES, log.arrived)
            self._send(wire.encode(wire.Log(path.name, log.begins + log.arrived, data)))

    def tell_user(self, text: str) -> None:
        """Send a message to the user of the run."""
        self._send(wire.encode(wire.Note(text)))

    def evict(self) -> None:
        """Remove the files that were used longest ago, if there are too many.

        Those of the last seconds stay: processes are about to open them, or to have them sent.
        """
        found = []
        for name in ("payloads", "checkpoints"):
            for entry in os.scandir(self._run_dir / name):
                path = f"{name}/{entry.name}"
                if _NAME.fullmatch(path) and path not in self._uploads:
                    with suppress(FileNotFoundError):  # its process has just removed it
                        stat = entry.stat()
                        # Files of the same content share their space
                        size = stat.st_size // max(1, stat.st_nlink)
                        found.append((stat.st_mtime, size, entry.path))
        total = sum(size for _, size, _ in found)
        used_until = max((at for at, _, _ in found), default=0.0) - _IN_USE_S
        too_much = max(total - CACHE_BYTES_MAX, _FREE_BYTES_MIN - free_bytes(str(self._run_dir)))
        for at, size, oldest in sorted(found):
            if too_much <= 0 or at > used_until:
                break
            Path(oldest).unlink(missing_ok=True)
            too_much -= size

    def list_code(
        self, pump: Callable[[], None], now: Callable[[], float], until: float
    ) -> list[tuple[str, int, int]]:
        """Return the copies of the user's code that the run has now; nothing if no broker answers.

        It returns soon then.
        """
        self._code = []
        asked_at = -1e9
        answered_until = min(until, now() + ANSWER_S)
        while not self._code:  # the list names at least one file
            if now() > answered_until:
                return []
            if now() - asked_at > ASK_AGAIN_S:
                asked_at = now()
                self._send(wire.encode(wire.CodeWanted()))
            pump()
        return self._code

    def fetch_code(self, pump: Callable[[], None], now: Callable[[], float], until: float) -> bool:
        """Fetch the present copies of the user's code; return whether that worked in time."""
        listed = self.list_code(pump, now, until)
        for name, size, mtime_ns in listed:
            path = self._run_dir / name
            if path.exists() and _looks(path) == (size, mtime_ns):
                continue
            path.parent.mkdir(mode=0o700, exist_ok=True)
            self._downloads[name] = Download(name, 0, now())
            while name in self._downloads:
                if now() > until:
                    del self._downloads[name]
                    return False
                pump()
            with suppress(FileNotFoundError):
                os.utime(path, ns=(mtime_ns, mtime_ns))
        return bool(listed)

    def is_other_launch(
        self, pump: Callable[[], None], now: Callable[[], float], until: float
    ) -> bool:
        """Return whether the broker is of another launch than the code that is here."""
        began = self._run_dir / KEPT / BEGAN
        if not began.exists():
            return False
        mine = began.stat().st_mtime_ns
        listed = self.list_code(pump, now, until)
        return any(name == f"{KEPT}/{BEGAN}" and at_ns != mine for name, _, at_ns in listed)

    def fetch(
        self, name: str, pump: Callable[[], None], now: Callable[[], float], until: float
    ) -> bool:
        """Fetch one file of the run; return whether that worked in time."""
        (self._run_dir / name).parent.mkdir(mode=0o700, exist_ok=True)
        self._downloads[name] = Download(name, 0, now())
        while name in self._downloads:
            if now() > until:
                del self._downloads[name]
                return False
            pump()
        return (self._run_dir / name).exists()

    @property
    def has_code(self) -> bool:
        """Whether copies of the user's code were fetched, at any time."""
        return (self._run_dir / KEPT).exists()

    def close(self) -> None:
        """Close the socket of the workers."""
        for fd, client in self._clients.items():
            self._unwatch(fd)
            client.close()
        self._unwatch(self._socket.fileno())
        self._socket.close()
