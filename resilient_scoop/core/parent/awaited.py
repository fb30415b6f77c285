"""What a parent waits for: items of its calls, and a digest that says which calls they are."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from resilient_scoop import ids
from resilient_scoop.hashing import blake2b

if TYPE_CHECKING:
    from resilient_scoop.core.parent.call import Call

Awaited = Iterable[tuple["Call", int]]
"""Calls, and indices of items in them."""
AWAITED_BYTES: Final = 8
"""Bytes of each half of the digest: that of the arguments, and that of the functions."""


def digest_of(awaited: Awaited) -> bytes:
    """Return a digest of the arguments of items, and one of their functions; none of no items."""
    arguments = blake2b(digest_size=AWAITED_BYTES)
    functions = blake2b(digest_size=AWAITED_BYTES)
    is_empty = True
    for call, index in awaited:
        is_empty = False
        arguments.update(ids.digests_of(call.digests, index, index + 1))
        functions.update(call.fingerprint)
    return b"" if is_empty else arguments.digest() + functions.digest()
