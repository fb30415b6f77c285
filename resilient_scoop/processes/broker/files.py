"""Files of the run folder, for agents of other hosts: a thread that reads, writes and syncs them.

Requests come from the broker's loop and answers go back to it, since sockets belong to one thread. Names
are checked against what an agent may name (`_READABLE`, `_WRITABLE`); nothing else of the run folder can be
reached. A file that arrives is a part in `incoming/` until its SHA-256 is right; then it gets its name, and
is synced before that if it is to be durable. One whose content is here already, under another name, is
linked to it when its first part arrives.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import threading
from collections import OrderedDict, deque
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Final, NamedTuple, assert_never

from resilient_scoop.adapters.free_space import NO_SPACE
from resilient_scoop.adapters.synced_files import sync_folder
from resilient_scoop.hosts.shipping import FOLDER as SHIP
from resilient_scoop.hosts.shipping import MANIFEST
from resilient_scoop.processes.kept_code import FOLDER as CODE
from resilient_scoop.runs.audit_findings import FILE as AUDIT
from resilient_scoop.runs.decisions import FILE as DECISIONS
from resilient_scoop.runs.json_text import one_line
from resilient_scoop.wire import files as wire

if TYPE_CHECKING:
    from collections.abc import Callable

_PAYLOAD: Final = r"payloads/(?:arg|res)-[0-9a-f]{32}|checkpoints/[0-9a-f]{64}"
_SHIPPED: Final = rf"{SHIP}/(?:[0-9a-f]{{64}}|{re.escape(MANIFEST)})"
_READABLE: Final = re.compile(rf"{_PAYLOAD}|{CODE}/[0-9a-z]+|{re.escape(DECISIONS)}|{_SHIPPED}")
_WRITABLE: Final = re.compile(_PAYLOAD)
_LOG: Final = re.compile(rf"(?P<host>[\w.-]+):(?:w\d+\.log|{re.escape(AUDIT)})")
_INCOMING: Final = "incoming"
_DIGESTS_MAX: Final = 256
LOG_BYTES_MAX: Final = 1 << 20
_NOTE_CHARS: Final = 1000


class FileRequest(NamedTuple):
    """A request of an agent: over which connection, of which host."""

    routing: bytes
    host: str
    message: wire.Up


class FileAnswer(NamedTuple):
    """An answer to an agent."""

    routing: bytes
    frame: bytes


class _RefusedError(Exception):
    """A request for a name that an agent may not use; the text contains it."""


class FileService:
    """Serves one run folder."""

    def __init__(self, run_dir: Path, wake: Callable[[], None], *, adopt: bool) -> None:
        self._run_dir = run_dir
        self._wake = wake
        self._requests: SimpleQueue[FileRequest | None] = SimpleQueue()
        self._answers: deque[FileAnswer] = deque()
        self._digests: OrderedDict[str, bytes] = OrderedDict()
        self._known: OrderedDict[bytes, str] = OrderedDict()  # digest -> a file that had it
        self._incoming = run_dir / _INCOMING
        self.notes: deque[tuple[str, str]] = deque(maxlen=64)  # (host, message)
        self.refused: deque[tuple[str, str]] = deque(maxlen=16)  # (host, refused request)
        self.failed: deque[str] = deque(maxlen=16)  # requests that failed because of the system
        if not adopt:
            shutil.rmtree(self._incoming, ignore_errors=True)
        self._incoming.mkdir(mode=0o700, exist_ok=True)
        self._thread = threading.Thread(target=self._serve, name="rscoop-files", daemon=True)
        self._thread.start()

    def ask(self, routing: bytes, host: str, body: bytes) -> None:
        """Queue a request; raises msgspec.MsgspecError if it is invalid."""
        self._requests.put(FileRequest(routing, host, wire.decode_up(body)))

    def answers(self) -> list[FileAnswer]:
        """Return the answers that are due."""
        found = []
        while self._answers:
            found.append(self._answers.popleft())
        return found

    def close(self, *, remove: bool) -> None:
        """End the thread; with `remove`, remove incomplete files."""
        self._requests.put(None)
        self._thread.join(5.0)
        if remove:
            shutil.rmtree(self._incoming, ignore_errors=True)

    # The methods below run in the thread.

    def _serve(self) -> None:
        while (request := self._requests.get()) is not None:
            try:
                answers = self._handle(request)
            except _RefusedError as error:
                self.refused.append((request.host, str(error)))
                self._wake()
                continue
            except OSError as error:  # a failing disk; requests that need an answer are repeated
                self.failed.append(
                    f"a request of {request.host} about a file of the run failed ({error}): see whether "
                    "the disk of the run's folder is well"
                )
                self._wake()
                continue
            for each in answers:
                self._answers.append(FileAnswer(request.routing, wire.encode(each)))
            if answers:
                self._wake()

    def _handle(self, request: FileRequest) -> list[wire.Down]:  # noqa: PLR0911 - one a request
        match request.message:
            case wire.Fetch(name=name, offset=offset):
                return [self._chunk(name, offset)]
            case wire.Store():
                return [self._store(request.host, request.message)]
            case wire.Sync(names=names):
                return [self._sync(name) for name in names]
            case wire.Remove(name=name):
                self._checked(name, _WRITABLE).unlink(missing_ok=True)
                return []
            case wire.Log():
                return [self._log(request.host, request.message)]
            case wire.Note(text=text):
                self.notes.append((request.host, one_line(text)[:_NOTE_CHARS]))
                self._wake()
                return []
            case wire.CodeWanted():
                return [wire.Code(self._code())]
            case _ as never:
                assert_never(never)

    def _checked(self, name: str, allowed: re.Pattern[str]) -> Path:
        if not allowed.fullmatch(name):
            raise _RefusedError(f"a file named {name[:80]!r}")
        return self._run_dir / name

    def _chunk(self, name: str, offset: int) -> wire.Chunk:
        path = self._checked(name, _READABLE)
        try:
            with path.open("rb") as file:
                total = os.fstat(file.fileno()).st_size
                digest = self._digest(name, path, total)
                data = os.pread(file.fileno(), wire.CHUNK_BYTES, min(max(0, offset), total))
        except OSError as error:
            return wire.Chunk(name, offset, 0, b"", b"", error.strerror or str(error))
        return wire.Chunk(name, offset, total, data, digest)

    def _digest(self, name: str, path: Path, total: int) -> bytes:
        """Return the SHA-256 of a file; files do not change, except those that grow."""
        key = f"{name} {total}"
        found = self._digests.get(key)
        if found is None:
            with path.open("rb") as file:
                found = hashlib.file_digest(file, "sha256").digest()
            self._digests[key] = found
            if len(self._digests) > _DIGESTS_MAX:
                self._digests.popitem(last=False)
            self._know(name, found)
        return found

    def _know(self, name: str, digest: bytes) -> None:
        """Remember a file, in case a host sends the same content under another name."""
        if _WRITABLE.fullmatch(name):
            self._known[digest] = name
            self._known.move_to_end(digest)
            if len(self._known) > _DIGESTS_MAX:
                self._known.popitem(last=False)

    def _link(self, path: Path, part: wire.Store) -> bool:
        """Link a file under another name, if the part is the first of a file with the same content."""
        twin = self._known.pop(part.digest, None) if part.offset == 0 else None
        if twin is None or len(part.data) == part.total:
            return False
        try:
            with (self._run_dir / twin).open("rb") as file:
                if hashlib.file_digest(file, "sha256").digest() != part.digest:
                    return False
                if part.sync:
                    os.fsync(file.fileno())
            path.parent.mkdir(mode=0o700, exist_ok=True)
            os.link(self._run_dir / twin, path)
            if part.sync:
                sync_folder(path.parent)
        except OSError:
            return False  # it was removed, or the file system has no links
        self._know(part.name, part.digest)
        return True

    def _store(self, host: str, part: wire.Store) -> wire.Stored:
        path, name = self._checked(part.name, _WRITABLE), part.name
        if path.exists():
            if part.sync:
                self._sync(name)
            return wire.Stored(name, part.total, done=True)
        draft = self._incoming / f"{host}-{path.name}"
        if self._link(path, part):
            draft.unlink(missing_ok=True)
            return wire.Stored(name, part.total, done=True)
        try:
            size = self._append(draft, part)
            if size < part.total:
                return wire.Stored(name, size)
            return self._finish(draft, path, part)
        except OSError as error:
            if error.errno in NO_SPACE:
                size = draft.stat().st_size if draft.exists() else 0
                return wire.Stored(name, size, full=True)
            return wire.Stored(name, 0, error=error.strerror or str(error))

    def _append(self, draft: Path, part: wire.Store) -> int:
        """Add a part if it is the next one; return the size then."""
        with draft.open("ab") as file:
            size = file.tell()
            if size > part.total:  # a part of another file of this name: impossible
                os.ftruncate(file.fileno(), 0)
                return 0
            if part.offset != size or size + len(part.data) > part.total:
                return size
            file.write(part.data)
            return file.tell()

    def _finish(self, draft: Path, path: Path, part: wire.Store) -> wire.Stored:
        with draft.open("rb") as file:
            if hashlib.file_digest(file, "sha256").digest() != part.digest:
                draft.unlink()
                return wire.Stored(part.name, 0)
            if part.sync:
                os.fsync(file.fileno())
        path.parent.mkdir(mode=0o700, exist_ok=True)
        draft.rename(path)
        if part.sync:
            sync_folder(path.parent)
        self._know(part.name, part.digest)
        return wire.Stored(part.name, part.total, done=True)

    def _sync(self, name: str) -> wire.Stored:
        path = self._checked(name, _WRITABLE)
        try:
            with path.open("rb") as file:
                os.fsync(file.fileno())
                size = os.fstat(file.fileno()).st_size
            sync_folder(path.parent)
        except OSError as error:
            return wire.Stored(name, 0, error=error.strerror or str(error))
        return wire.Stored(name, size, done=True)

    def _log(self, host: str, log: wire.Log) -> wire.Logged:
        found = _LOG.fullmatch(log.name)
        if found is None or found["host"] != host or len(log.data) > LOG_BYTES_MAX:
            raise _RefusedError(f"a log named {log.name[:80]!r}")
        path = self._run_dir / "logs" / log.name
        with suppress(OSError), path.open("ab") as file:  # a full disk: it is sent again
            if log.offset == file.tell():
                file.write(log.data)
        return wire.Logged(log.name, path.stat().st_size if path.exists() else 0)

    def _code(self) -> list[tuple[str, int, int]]:
        found = []
        names = [f"{CODE}/{each.name}" for each in (self._run_dir / CODE).glob("*")]
        for name in [*names, DECISIONS]:
            with suppress(OSError):
                if _READABLE.fullmatch(name):
                    stat = (self._run_dir / name).stat()
                    found.append((name, stat.st_size, stat.st_mtime_ns))
        return found
