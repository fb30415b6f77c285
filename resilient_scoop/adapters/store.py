"""Large payloads of a process: files of the run folder that it writes and reads itself.

So an array of any size crosses the broker as a name.

  results (`sync`)   content-addressed, synced before their name is sent, checked when read
  arguments          under a random name, not synced and not hashed: whoever made them can make them
                     again. They are whole for as long as the machine stays up, and the broker
                     forgets those of an earlier boot. Their maker removes them when the call is done.
"""

from __future__ import annotations

import mmap
import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

from resilient_scoop.adapters.blobs import BlobError, BlobStore, unpack_ref

if TYPE_CHECKING:
    from collections.abc import Sequence

ARGUMENT: Final = b"a"
_NAME_BYTES: Final = 16
_PARTS_MAX: Final = 512


class LargeStore:
    """The payload codec's store over a folder of the run."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._blobs = BlobStore(directory)

    def put(self, buffers: Sequence[bytes | memoryview], sync: bool) -> bytes:  # noqa: FBT001
        """Keep the parts behind one another; `sync` makes them durable before this returns."""
        if sync:
            return self._blobs.put(b"".join(buffers), sync=True).pack()
        self._directory.mkdir(mode=0o700, exist_ok=True)
        name = os.urandom(_NAME_BYTES)
        fd = os.open(self.path(name), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            _write_parts(fd, buffers)
        except OSError:
            self.path(name).unlink()
            raise
        finally:
            os.close(fd)
        return ARGUMENT + name

    def get(self, ref: bytes) -> memoryview:
        """Return what `put` was given, in memory of the caller's own that may be written to.

        Raises:
            BlobError: the file is missing or is not what was written.
        """
        if ref[:1] != ARGUMENT:
            return memoryview(bytearray(self._blobs.read(unpack_ref(ref))))
        try:
            with self.path(ref[1:]).open("rb") as file:
                return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY))
        except OSError as error:
            raise BlobError(f"the file of a large argument: {error.strerror}") from error

    def remove(self, ref: bytes) -> None:
        """Remove an argument's file; one that is gone is no error."""
        self.path(ref[1:]).unlink(missing_ok=True)

    def path(self, name: bytes) -> Path:
        """Return where an argument's file stands."""
        return self._directory / f"arg-{name.hex()}"


def remove_arguments(directory: Path) -> None:
    """Remove all arguments' files of a run that has ended."""
    for path in directory.glob("arg-*"):
        path.unlink(missing_ok=True)


def _write_parts(fd: int, buffers: Sequence[bytes | memoryview]) -> None:
    views = [memoryview(each).cast("B") for each in buffers if len(each)]
    while views:
        written = os.writev(fd, views[:_PARTS_MAX])
        while views and written >= len(views[0]):
            written -= len(views.pop(0))
        if written:
            views[0] = views[0][written:]
