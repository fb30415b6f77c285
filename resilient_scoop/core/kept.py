"""What running items said of their progress: figures for eyes, and where a payload is in the journal.

  K1  What an item said counts for the very call that it was said in: same place, same function,
      same arguments (NO-WRONG). It is forgotten, and its record erased in the same commit, when the
      item is done or another call stands in its place.
  K2  Of two attempts the later one's word stands, of one attempt the last.
  K3  Payloads are not kept in memory. A grant that carries one waits for its turn's commit and
      reads it back then: an attempt is given what is durable, and nothing older than what was
      durable when it was granted.

Kept: at most one record of an undone item that was started, and one of the script.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from resilient_scoop import ids

if TYPE_CHECKING:
    from resilient_scoop.wire.messages import Attempt, Progress

_Place = tuple[str, int]
"""A batch: its parent's path and its call number."""

SCRIPT: _Place = ("", 0)
"""Where the script's own word is."""


@dataclass(frozen=True, slots=True)
class Kept:
    """The last word of one item; `mark` is its function's fingerprint and its arguments' digest."""

    key: bytes
    mark: bytes
    attempt: Attempt
    tries: int
    done: float
    total: float | None
    has_payload: bool


@dataclass(slots=True)
class Keeping:
    """The words of all items."""

    run: bytes
    batches: dict[_Place, dict[int, Kept]] = field(default_factory=dict)
    stale: list[bytes] = field(default_factory=list)  # keys of records that are to be erased

    def key(self, parent: str, call: int, index: int) -> bytes:
        """Return the key of an item's record."""
        place = call.to_bytes(8, "big") + index.to_bytes(8, "big")
        return ids.log_prefix(self.run, parent) + place

    def put(self, said: Progress) -> bytes | None:
        """Keep an item's word; return its record's key, or None if a later attempt spoke (K2)."""
        batch = self.batches.setdefault((said.parent, said.call), {})
        old = batch.get(said.index)
        mine = (said.attempt.epoch, said.attempt.no)
        if old is not None and (old.attempt.epoch, old.attempt.no) > mine:
            return None
        key = old.key if old is not None else self.key(said.parent, said.call, said.index)
        mark = said.fingerprint + said.digest
        has_payload = bool(said.payload)
        batch[said.index] = Kept(
            key, mark, said.attempt, said.tries, said.done, said.total, has_payload
        )
        if key in self.stale:
            self.stale.remove(key)
        return key

    def forget(self, path: str, call: int, low: int, high: int) -> None:
        """Items are done, or are no more."""
        batch = self.batches.get((path, call))
        if batch is not None:
            for index in [index for index in batch if low <= index < high]:
                self._drop(path, call, index)

    def forget_others(self, path: str, call: int, marks: dict[int, bytes]) -> None:
        """Items are asked for: what is known of other ones in their places is void (K1)."""
        batch = self.batches.get((path, call), {})
        for index in [i for i, kept in batch.items() if i in marks and marks[i] != kept.mark]:
            self._drop(path, call, index)

    def forget_parent(self, path: str, calls: list[int]) -> None:
        """A parent is done, and all that it asked for in these calls."""
        for call in calls:
            self.forget(path, call, 0, 1 << 62)

    def within(self, path: str, call: int) -> dict[int, Kept] | None:
        """Return what items of a batch said, if any did."""
        return self.batches.get((path, call)) if self.batches else None

    def _drop(self, path: str, call: int, index: int) -> None:
        batch = self.batches[path, call]
        self.stale.append(batch.pop(index).key)
        if not batch:
            del self.batches[path, call]
