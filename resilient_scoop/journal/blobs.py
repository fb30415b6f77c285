"""Content-addressed files for payloads that are too large for the journal's own pages.

A file's name is the SHA-256 of its content (the fastest in hashlib here: 1.3 GB/s against 0.5 of
BLAKE2b), so that equal payloads are stored once and damage is detected. Order of durability: the
bytes are written to `*.tmp` and synced, the file gets its name, the directory is synced, and only
then may a commit name it; so a name in the journal always has its file. Files that no record names
are removed by `sweep`.

`sync=False` skips the syncs: such a file is complete or absent after any crash of a process, but
may be damaged by a power loss. It is for data that can be made again.
"""

from __future__ import annotations

import os
import struct
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from resilient_scoop.adapters.synced_files import sync_folder
from resilient_scoop.hashing import sha256

BLOB_BYTES_MIN: Final = 1 << 20
"""Payloads larger than this go to a file: in LMDB they would need long runs of free pages, and each
commit would copy them twice."""
_ASIDE_BYTES_MIN: Final = 4 << 20
"""From this size on, hashing in a thread during the write saves time (280 ms against 365 ms for 200 MB)."""
_REF: Final = struct.Struct(">32sQ")
TMP: Final = ".tmp"
_NAME_CHARS: Final = 64
_PARTS_MAX: Final = 512
"""Buffers of one writev(2); the limit of the kernel is 1,024."""
Parts = Sequence[bytes | memoryview]


class BlobRef(NamedTuple):
    """The name of a payload, which a record holds in its place."""

    digest: bytes  # SHA-256
    size_bytes: int

    def pack(self) -> bytes:
        """Return the 40 bytes for a record."""
        return _REF.pack(self.digest, self.size_bytes)


def unpack_ref(data: bytes) -> BlobRef:
    """Return the name; raises ValueError if it is invalid."""
    if len(data) != _REF.size:
        raise ValueError(f"a blob's name of {len(data)} bytes, not {_REF.size}")
    return BlobRef(*_REF.unpack(data))


class BlobError(Exception):
    """The file of a blob is missing or was changed; the text says which."""


class BlobStore:
    """The files of one directory; safe for one writer and many readers."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def put(self, payload: bytes | Parts, *, sync: bool = True, name: str | None = None) -> BlobRef:
        """Store one payload, or its joined parts; durable on return unless not `sync`.

        With a `name`, which must be new, the file gets that name instead of its digest: then it has
        one owner, and may be removed without checking for equal payloads.

        Raises:
            OSError: nothing was stored; errno distinguishes "no space" from other errors.
        """
        ref = self.write(payload, sync=sync, name=name)
        if sync:
            self.sync_names()
        return ref

    def write(
        self,
        payload: bytes | Parts,
        *,
        sync: bool = True,
        name: str | None = None,
        check: Callable[[Path, BlobRef], None] | None = None,
    ) -> BlobRef:
        """Store one payload as `put` does; the name is durable after `sync_names`.

        `check` gets the file before it is named; if it raises, nothing was stored.
        """
        self._directory.mkdir(mode=0o700, exist_ok=True)
        temporary = self._directory / f"{os.getpid()}-{threading.get_ident()}{TMP}"
        parts = [payload] if isinstance(payload, bytes) else payload
        stored = False
        try:
            ref = _write_hashed(temporary, parts, sync=sync)
            if check is not None:
                check(temporary, ref)
            temporary.rename(self._directory / name if name else self.path(ref.digest))
            stored = True
        finally:
            if not stored:
                temporary.unlink(missing_ok=True)
        return ref

    def sync_names(self) -> None:
        """Make the names of everything written so far durable."""
        sync_folder(self._directory)
        sync_folder(self._directory.parent)

    def path(self, digest: bytes) -> Path:
        """Return the path of the file with this digest."""
        return self._directory / digest.hex()

    def read(self, ref: BlobRef, name: str | None = None) -> bytes:
        """Return the payload, checked against its digest.

        Raises:
            BlobError: the file is missing, cut or changed.
        """
        return bytes(self.load(ref, name))

    def load(self, ref: BlobRef, name: str | None = None) -> memoryview:
        """As `read`, into memory that the caller may write to.

        Raises:
            BlobError: the file is missing, cut or changed.
        """
        name = name or ref.digest.hex()
        try:
            with (self._directory / name).open("rb", buffering=0) as file:
                payload = read_exactly(file.fileno(), ref.size_bytes)
        except FileNotFoundError as error:
            raise BlobError(f"the file {name} is missing") from error
        except OSError as error:
            raise BlobError(f"the file {name}: {error.strerror}") from error
        if payload is None:
            raise BlobError(f"the file {name} is not {ref.size_bytes} bytes long")
        if sha256(payload).digest() != ref.digest:
            raise BlobError(f"the content of the file {name} has changed")
        return payload

    def look(self, ref: BlobRef, name: str | None = None) -> None:
        """Raise BlobError unless the file exists with its size; its content is not read."""
        name = name or ref.digest.hex()
        try:
            size_bytes = (self._directory / name).stat().st_size
        except OSError as error:
            raise BlobError(f"the file {name}: {error.strerror}") from error
        if size_bytes != ref.size_bytes:
            raise BlobError(f"the file {name} is {size_bytes} bytes long, not {ref.size_bytes}")

    def remove(self, digest: bytes) -> None:
        """Remove the file of a digest that no record names."""
        self.path(digest).unlink(missing_ok=True)

    def sweep(self, named: Callable[[bytes], bool]) -> int:
        """Remove unfinished files and those whose digest is not `named`; return how many."""
        removed = 0
        try:
            entries = [entry.name for entry in os.scandir(self._directory)]
        except FileNotFoundError:
            return 0
        for name in entries:
            ours = len(name) == _NAME_CHARS and not name.strip("0123456789abcdef")
            if name.endswith(TMP) or (ours and not named(bytes.fromhex(name))):
                (self._directory / name).unlink(missing_ok=True)
                removed += 1
        return removed

    def size_bytes(self) -> int:
        """Return the size of all files."""
        try:
            return sum(entry.stat().st_size for entry in os.scandir(self._directory))
        except FileNotFoundError:
            return 0


def _write_hashed(path: Path, parts: Parts, *, sync: bool) -> BlobRef:
    digest = sha256()
    views = [memoryview(part).cast("B") for part in parts if len(part)]
    size_bytes = sum(map(len, views))

    def take_in() -> None:
        for view in views:
            digest.update(view)

    aside = None
    if size_bytes >= _ASIDE_BYTES_MIN:
        aside = threading.Thread(target=take_in, name="blob-digest")
        aside.start()
    fd = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        write_parts(fd, views)
        if sync:
            os.fsync(fd)
    finally:
        os.close(fd)
        if aside is not None:
            aside.join()
    if aside is None:
        take_in()
    return BlobRef(digest.digest(), size_bytes)


def write_parts(fd: int, parts: Parts) -> None:
    """Write parts one after another, uncopied."""
    views = [memoryview(each).cast("B") for each in parts if len(each)]
    while views:
        written = os.writev(fd, views[:_PARTS_MAX])
        while views and written >= len(views[0]):
            written -= len(views.pop(0))
        if written:
            views[0] = views[0][written:]


def read_exactly(fd: int, size_bytes: int) -> memoryview | None:
    """Return the whole file if it has this size; a wrong size in a name cannot allocate more memory.

    It is memory of the allocator, which is reused: fresh pages cost more than the reading.
    """
    if os.fstat(fd).st_size != size_bytes:
        return None
    whole = memoryview(bytearray(size_bytes))
    at = 0
    while at < size_bytes:  # one read returns 2 GiB at most
        more = os.preadv(fd, [whole[at:]], at)
        if not more:
            return None
        at += more
    return whole
