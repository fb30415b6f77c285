"""Files for states that are too large for the journal: content-addressed, synced, mapped when read.

A record names a file only after it is durable. The broker removes a file after the commit that
erased its last record; leftovers of a crash are removed when the run is resumed.
"""

from __future__ import annotations

import hashlib
import mmap
import os
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from resilient_scoop.adapters.free_space import NO_SPACE
from resilient_scoop.journal.blobs import (
    TMP,
    BlobError,
    BlobRef,
    BlobStore,
    unpack_ref,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

FOLDER: Final = "checkpoints"
INLINE_BYTES_MAX: Final = 1 << 19
"""Larger states are files: a message of a megabyte would delay all others in the broker."""
_SLICE_BYTES: Final = 8 << 20


class Mirror(Protocol):
    """The way from a folder on another host to that of the run (`transport.mirror`)."""

    def fetch(self, name: str) -> None:
        """Fetch a file to this host; raises OSError if there is none."""

    def push(self, name: str, *, durable: bool) -> None:
        """Send a file of this host to the run's host."""

    def sync(self, names: Sequence[str]) -> None:
        """Make files durable on the run's host."""

    def remove(self, name: str) -> None:
        """Remove a file from the run's host."""


class StateStore:
    """The files of one run's checkpoints."""

    def __init__(self, run_dir: Path, mirror: Mirror | None = None) -> None:
        """`mirror`: on another host than the run's, the way to the run's folder."""
        self.directory = run_dir / FOLDER
        self._blobs = BlobStore(self.directory)
        self._mirror = mirror

    def put(
        self,
        parts: Sequence[bytes | memoryview],
        check: Callable[[memoryview], None] | None = None,
    ) -> bytes:
        """Write the parts one after another; return their name when they are durable.

        `check` gets the content on disk; if it raises, nothing is stored.

        Raises:
            OSError: nothing was stored; errno distinguishes "no space" from other errors.
            BlobError: the disk returns other data than was written.
        """

        def look(path: Path, ref: BlobRef) -> None:
            if check is not None:
                check(_mapped(path, ref))

        ref = self._blobs.write(parts, check=look)
        self._blobs.sync_names()
        if self._mirror is not None:
            self._mirror.push(f"{FOLDER}/{ref.digest.hex()}", durable=True)
        return ref.pack()

    def get(self, name: bytes) -> memoryview:
        """Return the checked content in private memory of the caller.

        Raises:
            BlobError: the file is missing or was changed. OSError: on another host than the run's,
            there is no space for it.
        """
        try:
            ref = unpack_ref(name)
        except ValueError as error:
            raise BlobError(str(error)) from error
        path = self._blobs.path(ref.digest)
        if self._mirror is not None and not path.exists():
            try:
                self._mirror.fetch(f"{FOLDER}/{path.name}")
            except OSError as error:
                if error.errno in NO_SPACE:
                    raise
                raise BlobError(f"the file {path.name}: {error.strerror}") from error
        return _mapped(path, ref)

    def remove(self, name: bytes) -> None:
        """Remove a file; a missing one is no error."""
        self._blobs.path(unpack_ref(name).digest).unlink(missing_ok=True)

    def names(self) -> list[bytes]:
        """Return the digests of all files, as in the records that name them."""
        names = [path.name for path in self.directory.glob("[0-9a-f]" * 64)]
        return [bytes.fromhex(name) for name in names]

    def remove_all(self, digests: Iterable[bytes]) -> None:
        """Remove files that no record names, while no process writes any."""
        for digest in digests:
            self._blobs.remove(digest)

    def remove_unfinished(self) -> None:
        """Remove unfinished files of dead processes; they may be gigabytes."""
        for path in self.directory.glob(f"*{TMP}"):
            if not Path("/proc", path.name.partition("-")[0]).exists():
                path.unlink(missing_ok=True)

    def sweep(self, named: Iterable[bytes]) -> int:
        """Remove all files but the named ones, while no process writes any; return how many."""
        kept = {unpack_ref(name).digest.hex() for name in named}
        removed = 0
        for path in self.directory.glob("*"):
            if path.name not in kept:
                path.unlink(missing_ok=True)
                removed += 1
        return removed


def _mapped(path: Path, ref: BlobRef) -> memoryview:
    """Return a file's content, mapped and checked; raise BlobError if it was changed."""
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_size != ref.size_bytes:
                raise BlobError(f"the file {path.name} is not {ref.size_bytes} bytes long")
            content = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY))
    except OSError as error:
        raise BlobError(f"the file {path.name}: {error.strerror}") from error
    digest = hashlib.sha256()
    for at in range(0, len(content), _SLICE_BYTES):
        digest.update(content[at : at + _SLICE_BYTES])
    if digest.digest() != ref.digest:
        raise BlobError(f"the content of the file {path.name} has changed")
    return content
