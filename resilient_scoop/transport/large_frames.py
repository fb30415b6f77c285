"""Large parts of messages that an agent has relayed before are not sent to its host again.

Workers of one host often get the same callable, or the same constant. The sender remembers the digests of
large frames that it has sent over a connection, and sends the digest the next time; the receiver keeps as
many frames. Both forget what was used longest ago. If the receiver lacks one after all, since a message was
lost, it says so and drops the message, which its link sends again.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

LARGE_BYTES: Final = 1 << 16
KEPT_BYTES_MAX: Final = 128 << 20
_DIGEST_BYTES: Final = 20


def _digest(frame: bytes) -> bytes:
    return hashlib.blake2b(frame, digest_size=_DIGEST_BYTES).digest()


class SentFrames:
    """The sender's memory of one connection."""

    def __init__(self) -> None:
        self._sizes: OrderedDict[bytes, int] = OrderedDict()
        self._total = 0

    def shorten(self, frames: Sequence[bytes]) -> tuple[bytes, list[bytes]]:
        """Return the positions of frames that were sent before, and all frames, digests in their places."""
        positions, shortened = bytearray(), list(frames)
        for at, frame in enumerate(frames[:256]):
            if len(frame) < LARGE_BYTES:
                continue
            digest = _digest(frame)
            if digest in self._sizes:
                self._sizes.move_to_end(digest)
                positions.append(at)
                shortened[at] = digest
            else:
                self._sizes[digest] = len(frame)
                self._total += len(frame)
        while self._total > KEPT_BYTES_MAX:
            self._total -= self._sizes.popitem(last=False)[1]
        return bytes(positions), shortened

    def forget(self, digest: bytes) -> None:
        """Forget a frame that the receiver lacks."""
        self._total -= self._sizes.pop(digest, 0)


class KeptFrames:
    """The receiver's memory of one connection."""

    def __init__(self) -> None:
        self._frames: OrderedDict[bytes, bytes] = OrderedDict()
        self._total = 0

    def keep(self, frames: Sequence[bytes]) -> None:
        """Keep the large ones of a message."""
        for frame in frames:
            if len(frame) < LARGE_BYTES:
                continue
            digest = _digest(frame)
            if digest not in self._frames:
                self._frames[digest] = frame
                self._total += len(frame)
            self._frames.move_to_end(digest)
        while self._total > KEPT_BYTES_MAX:
            self._total -= len(self._frames.popitem(last=False)[1])

    def whole(self, positions: bytes, frames: Sequence[bytes]) -> list[bytes] | bytes:
        """Return the frames of a shortened message, or the digest of a missing one."""
        found = list(frames)
        here = {_digest(each): each for each in frames if len(each) >= LARGE_BYTES}
        for at in positions:
            if at >= len(found):
                return b""
            frame = here.get(found[at]) or self._frames.get(found[at])
            if frame is None:
                self.keep(frames)  # so that a repetition lacks only the frame that is missing now
                return found[at]
            found[at] = frame
        self.keep(found)
        return found
