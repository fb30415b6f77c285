"""Large payloads of a process: files of the run folder that it writes and reads itself.

So an array of any size crosses the broker as a name of 40 bytes.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from resilient_scoop.adapters.blobs import BlobStore, unpack_ref

if TYPE_CHECKING:
    from collections.abc import Sequence


class LargeStore:
    """The payload codec's store over a folder of blobs."""

    def __init__(self, directory: Path) -> None:
        self._blobs = BlobStore(directory)

    def put(self, buffers: Sequence[bytes | memoryview], sync: bool) -> bytes:  # noqa: FBT001
        """Keep the parts behind one another; `sync` makes them durable before this returns."""
        ref = self._blobs.put(b"".join(buffers), sync=sync)
        return ref.pack()

    def get(self, ref: bytes) -> memoryview:
        """Return what `put` was given."""
        return memoryview(bytearray(self._blobs.read(unpack_ref(ref))))
