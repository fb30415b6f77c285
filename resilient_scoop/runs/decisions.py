"""The user's decisions about results of changed code, kept with the run.

A decision is about a pair of fingerprints: of the code that made the results, and of the code at
the time of the decision. So it is valid for exactly this code: after another change, the user is
asked again. The last decision on a pair counts.

The file holds one JSON line per decision, appended and synced. A line that a power cut has cut
short is ignored: the user is asked again.
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
"""Two fingerprints: of the code that made the results, of the present code."""


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """Whether results of other code are kept (`keep`) or computed again."""

    name: str
    then: bytes
    now: bytes
    keep: bool
    results: int = 0  # number of results concerned; 0 if they were not counted
    decided_at: float = 0.0  # seconds since 1970

    @property
    def pair(self) -> Pair:
        """The pair of fingerprints."""
        return self.then, self.now

    @property
    def title(self) -> str:
        """The name of the function, for display."""
        return self.name.rpartition(":")[2]


def load(run_dir: Path) -> dict[Pair, Decision]:
    """Return the valid decisions."""
    return {each.pair: each for each in _lines(run_dir)}


def kept(run_dir: Path) -> set[Pair]:
    """Return the pairs whose results are kept."""
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
