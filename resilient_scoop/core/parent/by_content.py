"""Numbers of calls that are found by content: function, arguments, and how many equal ones came before.

The calls of threads have no fixed order, so a replay cannot find them by counting. Their number is
made from what they are: a replay that makes the same call gives it the same number, whichever
thread makes it, and whenever. All of them are calls of one parent, `ids.SHARED`. (Decision 0066.)

  BC1  Equal calls get different numbers; the k-th equal call of every attempt gets the same one.
  BC2  Two different calls may get one number (a collision, or arguments that cannot be compared). Then
       the item of the journal does not fit, and is computed again (P1): never a wrong result.
  BC3  Random streams are seeded from the path, hence from the content: threads that change their
       order change no answer.
"""

from __future__ import annotations

from typing import Final

from resilient_scoop.hashing import blake2b

_EQUAL_BITS: Final = 12
_CONTENT_BYTES: Final = 5
"""Numbers have 52 bits, so that they are exact in JSON, too."""


class ByContent:
    """The numbers that one attempt has given."""

    __slots__ = ("_made",)

    def __init__(self) -> None:
        self._made: dict[int, int] = {}  # content -> how many equal calls were made

    def number(self, fingerprint: bytes, digests: bytes) -> int:
        """Return the number of the next call of this content (BC1)."""
        content = _content(fingerprint, digests, 0)
        count = self._made.get(content, 0)
        self._made[content] = count + 1
        if not count:
            return content << _EQUAL_BITS
        more, place = divmod(count, 1 << _EQUAL_BITS)
        if more:  # there are so many equal calls that a number has no room for their count
            content = _content(fingerprint, digests, more)
            self._made[content] = place + 1
        return content << _EQUAL_BITS | place

    def is_made(self, number: int) -> bool:
        """Return whether this attempt has made the call of a number."""
        content, place = divmod(number, 1 << _EQUAL_BITS)
        return self._made.get(content, 0) > place


def _content(fingerprint: bytes, digests: bytes, more: int) -> int:
    parts = fingerprint + digests
    if more:
        parts += more.to_bytes(4, "big")
    return int.from_bytes(blake2b(parts, digest_size=_CONTENT_BYTES).digest(), "big")
