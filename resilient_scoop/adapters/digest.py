"""Digests of items' arguments: how a replay knows that a result is of the same call (NO-WRONG).

Equal arguments made by the same code digest equally in another process; see `canonical` for how.
Values of different types are different arguments (1, True, 1.0), as are 0.0 and -0.0; a nan equals
itself. `NOT_COMPARED` stands for arguments without a canonical form.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from typing import Any, Final

from resilient_scoop.adapters.canonical import Canon
from resilient_scoop.adapters.fingerprint import FingerprintCache, describe, is_user_code
from resilient_scoop.ids import DIGEST_BYTES

NOT_COMPARED: Final = bytes(DIGEST_BYTES)

_PLAIN_PICKLE: Final = 0x80
_SCALARS: Final = frozenset({int, float, str, bytes, bool, type(None), complex})
_UNSHARED: Final = frozenset({int, float, bool, type(None)})
"""Types for which pickle keeps no memo: a tuple of them pickles the same wherever it was made."""
_SMALL_BYTES: Final = 1 << 16
"""Larger ones digest the same whether they travel in the payload or in a file."""
_BLOB_BYTES: Final = 256 << 20
"""Assumed size of what is in a file: it only bounds the work on shared parts."""

_fingerprints: Final = FingerprintCache()


def digest(obj: object, payload: bytes) -> bytes:
    """Return the digest (DIGEST_BYTES) of an item's arguments, `payload` being their pickle."""
    kind = type(obj)
    plain = payload[0] == _PLAIN_PICKLE
    small = plain and len(payload) <= _SMALL_BYTES
    if small and (kind in _SCALARS or (kind is tuple and _is_flat(obj))):
        return blake2b(payload, digest_size=DIGEST_BYTES).digest()
    found = _canon.digest(obj, len(payload) if plain else _BLOB_BYTES)
    return NOT_COMPARED if found is None else found[:DIGEST_BYTES]


def digest_value(obj: object) -> bytes | None:
    """Return the digest of a value by itself, wherever and however it travels; None: it has none."""
    return _canon.digest(obj, _BLOB_BYTES)


def digest_many(args: Sequence[object], payloads: Sequence[bytes]) -> bytes:
    """Return the digests of a slice's items behind one another."""
    plain = {payload[0] for payload in payloads} == {_PLAIN_PICKLE}
    if plain and _SCALARS.issuperset(map(type, args)) and max(map(len, payloads)) <= _SMALL_BYTES:
        hashed, size = blake2b, DIGEST_BYTES  # a million of these is what makes a map slow
        return b"".join([hashed(payload, digest_size=size).digest() for payload in payloads])
    return b"".join(map(digest, args, payloads))


def _is_flat(obj: Any) -> bool:
    return _UNSHARED.issuperset(map(type, obj)) or (len(obj) == 1 and type(obj[0]) in _SCALARS)


def _function_key(function: Any) -> bytes:
    """Return what stands for a function among the arguments: its code, or a library's by name."""
    if is_user_code(function):
        return _fingerprints.of(function)
    return describe(function).encode()


_canon: Final = Canon(_function_key)
