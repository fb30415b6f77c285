"""Files for unacknowledged messages of the processes of another host (`core.relay`).

They are not synced: a power failure of the host loses only unacknowledged results. A digest shows
whether a file is incomplete or damaged.
"""

from __future__ import annotations

import hashlib
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import msgspec

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

FOLDER: Final = "unacknowledged"
_DIGEST_BYTES: Final = 32
_decode = msgspec.msgpack.Decoder(list[bytes]).decode


class BundleFiles:
    """The files of one host, in its folder of the run."""

    def __init__(self, run_dir: Path) -> None:
        self._folder = run_dir / FOLDER
        self._last = 0

    def write(self, frames: Sequence[bytes]) -> int | None:
        """Write a bundle; return its number, or None if that is not possible."""
        body = msgspec.msgpack.encode(list(frames))
        path = self._folder / str(self._last + 1)
        try:
            self._folder.mkdir(mode=0o700, exist_ok=True)
            with path.open("wb") as file:
                file.write(_digest(body))
                file.write(body)
        except OSError:
            with suppress(OSError):
                path.unlink(missing_ok=True)
            return None
        self._last += 1
        return self._last

    def read(self, number: int) -> list[bytes] | None:
        """Return a bundle, or None if its file differs from what was written."""
        try:
            raw = (self._folder / str(number)).read_bytes()
        except OSError:
            return None
        digest, body = raw[:_DIGEST_BYTES], raw[_DIGEST_BYTES:]
        return _decode(body) if digest == _digest(body) else None

    def remove(self, number: int) -> None:
        """Remove a file."""
        with suppress(OSError):
            (self._folder / str(number)).unlink(missing_ok=True)


def _digest(body: bytes) -> bytes:
    return hashlib.blake2b(body, digest_size=_DIGEST_BYTES).digest()
