"""What the user has decided about the results of changed code, kept with the run.

A decision is about a pair of fingerprints: that of the code which made the results, and that of the
code as it was when the user decided. So it holds for exactly this code: another change asks again.
The last decision on a pair counts.

The file holds one JSON line per decision, appended and synced. A line that a power cut has cut short
counts for nothing: the user is asked again.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

FILE: Final = "decisions.jsonl"
Pair = tuple[bytes, bytes]
"""Fingerprints: of what made the results, of the code now."""


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """Whether results of other code stand (`keep`) or are computed again."""

    name: str
    then: bytes
    now: bytes
    keep: bool
    results: int = 0  # how many it was about; 0 where nobody counted
    decided_at: float = 0.0  # seconds since 1970

    @property
    def pair(self) -> Pair:
        """What it is about."""
        return self.then, self.now

    @property
    def title(self) -> str:
        """What the user calls the function."""
        return self.name.rpartition(":")[2]


def load(run_dir: Path) -> dict[Pair, Decision]:
    """Return the decisions that count."""
    return {each.pair: each for each in _lines(run_dir)}


def kept(run_dir: Path) -> set[Pair]:
    """Return the pairs whose results stand."""
    return {pair for pair, each in load(run_dir).items() if each.keep}


def save(run_dir: Path, decisions: Iterable[Decision]) -> None:
    """Add decisions, durably."""
    text = b"".join(b"\n" + msgspec.json.encode(each) + b"\n" for each in decisions)
    if not text:
        return
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
    fd = os.open(run_dir / FILE, flags, 0o600)
    try:
        os.write(fd, text)
        os.fsync(fd)
    finally:
        os.close(fd)


def _lines(run_dir: Path) -> Iterator[Decision]:
    try:
        content = (run_dir / FILE).read_bytes()
    except FileNotFoundError:
        return
    for line in content.splitlines():
        try:
            yield msgspec.json.decode(line, type=Decision)
        except msgspec.DecodeError:
            continue  # empty, or cut short
