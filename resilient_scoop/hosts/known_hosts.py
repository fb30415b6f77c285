"""Files of known host keys, in OpenSSH's format: is this the key of that host?

Names may be hashed (`|1|salt|hash`), patterns with `*`, `?` and `!`, and have a port (`[host]:2222`). A key
marked `@revoked` is never accepted. The keys of `@cert-authority` lines are not the host's: paramiko checks
no host certificates.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import re
from collections.abc import Iterable
from enum import Enum
from pathlib import Path
from typing import Final

import msgspec

_REVOKED: Final = "@revoked"
_AUTHORITY: Final = "@cert-authority"
_FIELDS_MIN: Final = 3
_HASHED_PARTS: Final = 4
_LINE_BYTES_MAX: Final = 64 * 1024


class Verdict(Enum):
    """The verdicts about a key."""

    KNOWN = "known"
    UNKNOWN = "unknown"
    CHANGED = "changed"  # other keys of this host are known, but not this one
    REVOKED = "revoked"


class Judged(msgspec.Struct, frozen=True):
    """A verdict, and the line that proves it."""

    verdict: Verdict
    where: str = ""  # "FILE line N"
    expected: str = ""  # type and fingerprint of the key in the file


class _Entry(msgspec.Struct, frozen=True):
    names: str
    kind: str
    key: bytes
    marker: str  # "", "@revoked" or "@cert-authority"
    where: str

    @property
    def is_revoked(self) -> bool:
        return self.marker == _REVOKED


class KnownHosts:
    """The entries of several files."""

    def __init__(self, files: Iterable[str]) -> None:
        entries = [entry for file in files for entry in _read(Path(file))]
        self._entries = [entry for entry in entries if entry.marker != _AUTHORITY]
        self._authorities = [entry for entry in entries if entry.marker == _AUTHORITY]

    def judge(self, name: str, kind: str, key: bytes) -> Judged:
        """Return what is known of a key that a host presents."""
        entries = [entry for entry in self._entries if _names(entry.names, name)]
        for entry in entries:
            if entry.is_revoked and entry.key == key:
                return Judged(Verdict.REVOKED, entry.where)
        entries = [entry for entry in entries if not entry.is_revoked]
        for entry in entries:
            if entry.key == key:
                return Judged(Verdict.KNOWN, entry.where)
        if not entries:
            return Judged(Verdict.UNKNOWN)
        nearest = next((entry for entry in entries if entry.kind == kind), entries[0])
        expected = f"{nearest.kind} {fingerprint(nearest.key)}"
        return Judged(Verdict.CHANGED, nearest.where, expected)

    def authority(self, name: str) -> str:
        """Return the line of a certificate authority for a host; empty if there is none."""
        return next((each.where for each in self._authorities if _names(each.names, name)), "")

    def kinds(self, name: str) -> list[str]:
        """Return the types of the keys that are known for a host."""
        return [
            entry.kind
            for entry in self._entries
            if not entry.is_revoked and _names(entry.names, name)
        ]


def fingerprint(key: bytes) -> str:
    """Return a key's fingerprint as `ssh-keygen -l` prints it."""
    return "SHA256:" + base64.b64encode(hashlib.sha256(key).digest()).decode().rstrip("=")


def learn(file: str, name: str, kind: str, key: bytes) -> None:
    """Append a key to a file of known hosts, which is made if there is none.

    Raises:
        OSError: it cannot be written.
    """
    path = Path(file)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    line = f"{name} {kind} {base64.b64encode(key).decode()}\n"
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        size = os.fstat(fd).st_size
        if size and os.pread(fd, 1, size - 1) != b"\n":
            line = "\n" + line
        os.write(fd, line.encode())
    finally:
        os.close(fd)


def _read(path: Path) -> list[_Entry]:
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []  # as OpenSSH does: a host that is not found there is unknown
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        fields = line.split()
        if not fields or fields[0].startswith("#") or len(line) > _LINE_BYTES_MAX:
            continue
        marker = fields.pop(0) if fields[0].startswith("@") else ""
        if marker not in {"", _REVOKED, _AUTHORITY} or len(fields) < _FIELDS_MIN:
            continue
        try:
            key = base64.b64decode(fields[2], validate=True)
        except binascii.Error:
            continue
        found.append(_Entry(fields[0], fields[1], key, marker, f"{path} line {number}"))
    return found


def _names(patterns: str, name: str) -> bool:
    """Return whether the first field of a line names a host."""
    is_named = False
    for pattern in patterns.split(","):
        if pattern.startswith("|1|"):
            is_named = is_named or _is_hash_of(pattern, name)
        elif pattern.startswith("!"):
            if _matches(pattern[1:], name):
                return False
        else:
            is_named = is_named or _matches(pattern, name)
    return is_named


def _matches(pattern: str, name: str) -> bool:
    regex = re.escape(pattern.lower()).replace(r"\*", ".*").replace(r"\?", ".")
    return re.fullmatch(regex, name.lower()) is not None


def _is_hash_of(pattern: str, name: str) -> bool:
    parts = pattern.split("|")
    if len(parts) != _HASHED_PARTS:
        return False
    try:
        salt, digest = (base64.b64decode(part, validate=True) for part in parts[2:])
    except binascii.Error:
        return False
    return hmac.compare_digest(hmac.digest(salt, name.lower().encode(), "sha1"), digest)
