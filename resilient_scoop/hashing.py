"""BLAKE2b and SHA-256 without the import of `hashlib`: that loads OpenSSL, some milliseconds a process."""

from __future__ import annotations

from _blake2 import blake2b  # the function that `hashlib` has under this name
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import hashlib

    from _typeshed import ReadableBuffer

__all__ = ["blake2b", "sha256"]


def sha256(data: ReadableBuffer = b"") -> hashlib._Hash:
    """Return the hash object of `hashlib.sha256`, which uses the processor's instructions for it."""
    import hashlib

    return hashlib.sha256(data)
