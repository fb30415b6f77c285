"""Large payloads of a process: files in the run folder that it writes and reads itself.

So an array of any size passes the broker as a name.

  results (`sync`)   under a random name, synced before the name is sent, checked when read. The file
                     is removed when the last record that holds its name is dropped
                     (`journal.result_files`); since no two writers share a name, that can never be
                     the file of a result that is only on its way to the journal
  arguments          under a random name, not synced and not hashed: their maker can make them
                     again. They are whole for as long as the machine stays up, and the broker
                     forgets those of an earlier boot. Their maker removes them when the item is done.

The two kinds of names differ in length.

On another host than the run's, the folder is a cache: a `Mirror` passes on what is written, which is
durable in the run's folder before its name is sent, and fetches what is read.
"""

from __future__ import annotations

import mmap
import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

from resilient_scoop.adapters.synced_files import sync_folder
from resilient_scoop.journal import result_files
from resilient_scoop.journal.blobs import (
    BlobError,
    BlobStore,
    write_parts,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from resilient_scoop.journal.state_store import Mirror

    Patience = Callable[[Callable[[], bytes], int, bool], bytes]
    """Calls a function again until there is space for a number of bytes, in a synced file or not."""

FOLDER: Final = result_files.FOLDER
ARGUMENT: Final = b"a"
_NAME_BYTES: Final = result_files.ID_BYTES
_REF_BYTES: Final = len(ARGUMENT) + _NAME_BYTES + 8


class LargeStore:
    """The payload codec's store over a folder of the run."""

    def __init__(
        self, directory: Path, patience: Patience | None = None, mirror: Mirror | None = None
    ) -> None:
        self._directory = directory
        self._blobs = BlobStore(directory)
        self._patience = patience
        self._mirror = mirror

    def put(self, buffers: Sequence[bytes | memoryview], sync: bool) -> bytes:  # noqa: FBT001 - the protocol has one position each
        """Write the parts one after another; `sync` makes them durable before this returns.

        Raises:
            OSError: the disk refused; with a `patience`, for another reason than missing space.
        """
        if self._patience is None:
            return self._put(buffers, sync=sync)
        size_bytes = sum(map(len, buffers))
        return self._patience(lambda: self._put(buffers, sync=sync), size_bytes, sync)

    def _put(self, buffers: Sequence[bytes | memoryview], *, sync: bool) -> bytes:
        if self._mirror is None:
            return self._write(buffers, sync=sync)
        ref = self._write(buffers, sync=False, result=sync)
        path = self._path_of(ref)
        try:
            self._mirror.push(f"{FOLDER}/{path.name}", durable=sync)
        except OSError:
            path.unlink(missing_ok=True)
            raise
        return ref

    def _write(
        self, buffers: Sequence[bytes | memoryview], *, sync: bool, result: bool | None = None
    ) -> bytes:
        if sync if result is None else result:
            name = os.urandom(_NAME_BYTES)
            ref = self._blobs.put(buffers, sync=sync, name=result_files.name_of(name))
            return result_files.TAG + name + ref.pack()
        self._directory.mkdir(mode=0o700, exist_ok=True)
        name = os.urandom(_NAME_BYTES)
        fd = os.open(self.path(name), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            write_parts(fd, buffers)
        except OSError:
            self.path(name).unlink()
            raise
        finally:
            os.close(fd)
        return ARGUMENT + name + sum(map(len, buffers)).to_bytes(8, "big")

    def get(self, ref: bytes) -> memoryview:
        """Return the content given to `put`, in memory that the caller may write to.

        On another host than the run's, a `patience` waits for space there.

        Raises:
            BlobError: the file is missing or is not what was written.
        """
        if self._mirror is not None:
            self._have(self._mirror, ref)
        if len(ref) != _REF_BYTES:
            return self._blobs.load(*result_files.unpack(ref))
        try:
            with self.path(_name(ref)).open("rb") as file:
                return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY))
        except OSError as error:
            raise BlobError(f"the file of a large argument: {error.strerror}") from error

    def _have(self, mirror: Mirror, ref: bytes) -> None:
        path = self._path_of(ref)
        if path.exists():
            return

        def fetch() -> bytes:
            mirror.fetch(f"{FOLDER}/{path.name}")
            return b""

        try:
            if self._patience is None:
                fetch()
            else:
                self._patience(fetch, size_of(ref), False)  # noqa: FBT003 - as it is declared
        except OSError as error:
            raise BlobError(f"the file {path.name}: {error.strerror}") from error

    def _path_of(self, ref: bytes) -> Path:
        if len(ref) != _REF_BYTES:
            return self._directory / result_files.unpack(ref)[1]
        return self.path(_name(ref))

    def sync(self, refs: Sequence[bytes]) -> None:
        """Make the files of arguments durable: a checkpoint will depend on them.

        Raises:
            OSError: the disk refused.
        """
        if self._mirror is not None:
            self._mirror.sync([f"{FOLDER}/{self._path_of(ref).name}" for ref in refs])
            return
        for ref in refs:
            fd = os.open(self.path(_name(ref)), os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)
        sync_folder(self._directory)

    def remove(self, ref: bytes) -> None:
        """Remove an argument's file; a missing one is no error."""
        path = self.path(_name(ref))
        path.unlink(missing_ok=True)
        if self._mirror is not None:
            self._mirror.remove(f"{FOLDER}/{path.name}")

    def withdraw(self, ref: bytes) -> None:
        """Remove the file of a payload that `put` synced and no record names."""
        result_files.remove(self._directory, ref[len(result_files.TAG) :][:_NAME_BYTES])
        if self._mirror is not None:
            self._mirror.remove(f"{FOLDER}/{self._path_of(ref).name}")

    def path(self, name: bytes) -> Path:
        """Return the path of an argument's file."""
        return self._directory / f"arg-{name.hex()}"


def remove_arguments(directory: Path) -> None:
    """Remove all arguments' files of a run that has ended."""
    for path in directory.glob("arg-*"):
        path.unlink(missing_ok=True)


def size_of(ref: bytes) -> int:
    """Return the size of a file."""
    return int.from_bytes(ref[-8:], "big")


def _name(ref: bytes) -> bytes:
    return ref[len(ARGUMENT) : -8]
