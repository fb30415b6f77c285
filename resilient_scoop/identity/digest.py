"""Digests of items' arguments: a replay uses them to check that a result is of the same call (NO-WRONG).

Equal arguments made by the same code digest equally in another process; see `canonical` for how.
Values of different types are different arguments (1, True, 1.0), and so are 0.0 and -0.0; a nan
equals itself. Arguments without a canonical form have a digest that equals no other: such calls are
computed again.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from types import ModuleType
from typing import Any, Final

from resilient_scoop.adapters.canonical import Canon
from resilient_scoop.hashing import blake2b
from resilient_scoop.identity.change_guard import Guard
from resilient_scoop.identity.meaning import Meaning
from resilient_scoop.ids import DIGEST_BYTES
from resilient_scoop.values.user_code import describe, is_user_code, is_user_module
from resilient_scoop.wire.callables import AS_IMPORTED, Reference
from resilient_scoop.wire.payload_tags import PICKLE

_PLAIN_PICKLE: Final = PICKLE[0]
_SCALARS: Final = frozenset({int, float, str, bytes, bool, type(None), complex})
_UNSHARED: Final = frozenset({int, float, bool, type(None)})
"""Types for which pickle keeps no memo: a tuple of them always pickles to the same bytes."""
SMALL_BYTES: Final = 1 << 16
"""Larger ones have the same digest in the payload or in a file."""
_BLOB_BYTES: Final = 256 << 20
"""Assumed size of a value in a file: it only limits the work on shared parts."""

Changed = dict[str, tuple[Reference, Any]]
"""Changes of the script since its import, with the values, by home."""

_known: Final[dict[int, tuple[Any, bytes, Guard, Changed]]] = {}
_KNOWN_MAX: Final = 1024
_met: Final[Changed] = {}


def digest(obj: object, payload: bytes) -> bytes:
    """Return the digest (DIGEST_BYTES) of an item's arguments, `payload` being their pickle."""
    kind = type(obj)
    plain = payload[0] == _PLAIN_PICKLE
    small = plain and len(payload) <= SMALL_BYTES
    if small and (kind in _SCALARS or (kind is tuple and _is_flat(obj))):
        return blake2b(payload, digest_size=DIGEST_BYTES).digest()
    found = _canon.digest(obj, len(payload) if plain else _BLOB_BYTES)
    return os.urandom(DIGEST_BYTES) if found is None else found[:DIGEST_BYTES]


def has_met() -> bool:
    """Return whether `take_met` has something to return."""
    return bool(_met)


def digest_value(obj: object) -> bytes | None:
    """Return the digest of a value, independent of its pickling; None: it has none."""
    return _canon.digest(obj, _BLOB_BYTES)


def digest_anew(obj: object) -> bytes | None:
    """As `digest_value`, but survey its functions and classes again: what cannot be compared differs."""
    _known.clear()
    return digest_value(obj)


def digest_scalars(payloads: Sequence[bytes]) -> bytes:
    """Return the digests of items that are scalars, joined; `payloads`: their plain pickles, none large."""
    hashed, size = blake2b, DIGEST_BYTES  # a map may make a million of these
    if len(payloads) == 1:
        return hashed(payloads[0], digest_size=size).digest()
    return b"".join([hashed(payload, digest_size=size).digest() for payload in payloads])


def digest_many(args: Sequence[object], payloads: Sequence[bytes]) -> bytes:
    """Return the digests of a slice's items, joined."""
    plain = {payload[0] for payload in payloads} == {_PLAIN_PICKLE}
    if plain and _SCALARS.issuperset(map(type, args)) and max(map(len, payloads)) <= SMALL_BYTES:
        return digest_scalars(payloads)
    return b"".join(map(digest, args, payloads))


def _is_flat(obj: Any) -> bool:
    return _UNSHARED.issuperset(map(type, obj)) or (len(obj) == 1 and type(obj[0]) in _SCALARS)


def _function_key(function: Any) -> bytes:
    """Return the key of a function among the arguments: its code, or the name for a library's."""
    return _meaning_of(function) if is_user_code(function) else describe(function).encode()


def _class_key(cls: type) -> bytes | None:
    """Return the key of a user's class: a result can depend on all its methods."""
    return _meaning_of(cls) + cls.__qualname__.encode() if is_user_code(cls) else None


def _module_key(module: ModuleType) -> bytes:
    """Return the key of what the script has changed in a module; empty if nothing is known."""
    if not is_user_module(module.__name__):
        return b""
    key = _meaning_of(module)
    return key if _known[id(module)][3] else b""


def forget_known() -> None:
    """Drop functions, classes and modules that were found among arguments: the process ends."""
    _known.clear()
    _met.clear()


def _meaning_of(obj: Any) -> bytes:
    found = _known.get(id(obj))
    if found is not None and found[0] is obj and found[2].holds():
        if found[3]:
            _met.update(found[3])
        return found[1]
    meaning = Meaning(obj)
    if len(_known) >= _KNOWN_MAX:
        _known.clear()
    changed = {
        each.home: (each, meaning.objects[each.home])
        for each in meaning.references
        if each.home and not each.flags & AS_IMPORTED
    }
    _known[id(obj)] = (obj, meaning.fingerprint, meaning.guard, changed)
    _met.update(changed)
    return meaning.fingerprint


def take_met() -> Changed:
    """Return the script's changes in objects that arguments have referred to since the last call."""
    found = _met.copy()
    _met.clear()
    return found


_canon: Final = Canon(_function_key, _class_key, module_key=_module_key)
