"""Progress of running items: figures for display, and the places of payloads in the journal.

  K1  Progress counts only for the call that reported it: same place, same function, same arguments
      (NO-WRONG). It is forgotten, and its record erased in the same commit, when the item is done or
      another call is at its position.
  K2  Of two attempts, the progress of the later one counts; of one attempt, its last report.
  K3  Payloads are not kept in memory. A grant that carries one waits for its turn's commit and
      reads it back then: an attempt is given what is durable, and nothing older than what was
      durable when it was granted.

There is at most one record of an undone item that was started, and one of the script.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from resilient_scoop import ids
from resilient_scoop.core.events import StoredResume

if TYPE_CHECKING:
    from resilient_scoop.core.facts.batch import Batch
    from resilient_scoop.wire.messages import Attempt, Progress

_Place = tuple[str, int]
"""A batch: its parent's path and its call number."""

SCRIPT: _Place = ("", 0)
"""The place of the script's own progress."""


class ItemProgress(msgspec.Struct, frozen=True):
    """The last progress of one item; `mark` is its function's fingerprint and its arguments' digest."""

    key: bytes
    fn: bytes
    mark: bytes
    attempt: Attempt
    tries: int
    done: float
    total: float | None
    has_payload: bool
    label: str = ""

    def resume(self) -> StoredResume | None:
        """Return where the payload is, if there is one: it is not kept in memory (K3)."""
        return StoredResume(self.key, self.mark) if self.has_payload else None


class ProgressTable(msgspec.Struct):
    """The progress of all items."""

    batches: dict[_Place, dict[int, ItemProgress]] = {}
    stale: list[bytes] = []  # keys of records that are to be erased

    def put(self, message: Progress, fn: bytes, run: bytes) -> bytes | None:
        """Keep an item's progress; return its record's key; None: a later attempt has reported (K2)."""
        batch = self.batches.setdefault((message.parent, message.call), {})
        old = batch.get(message.index)
        mine = (message.attempt.epoch, message.attempt.no)
        if old is not None and (old.attempt.epoch, old.attempt.no) > mine:
            return None
        place = message.call.to_bytes(8, "big") + message.index.to_bytes(8, "big")
        key = old.key if old is not None else ids.log_prefix(run, message.parent) + place
        mark = message.fingerprint + message.digest
        has_payload = bool(message.payload)
        batch[message.index] = ItemProgress(
            key, fn, mark, message.attempt, message.tries, message.done, message.total, has_payload,
            message.label,
        )  # fmt: skip
        if key in self.stale:
            self.stale.remove(key)
        return key

    def sift(self, path: str, batch: Batch | None, call: int, low: int, high: int) -> None:
        """Drop the progress of items of a batch that are done, or have changed (K1).

        `batch` is the call as it stands; None once it is done.
        """
        items = self.batches.get((path, call))
        if items is None:
            return
        for index in [index for index in items if low <= index < high]:
            piece = None if batch is None or index not in batch.undone else batch.piece_at(index)
            if piece is not None and batch is not None:
                digest = batch.digests_of(index, index + 1)
                if (piece.fn, digest) == (items[index].fn, items[index].mark[-ids.DIGEST_BYTES :]):
                    continue
            self.drop(path, call, index)

    def cut(self, path: str, call: int, start: int, stop: int) -> tuple[ItemProgress | None, int]:
        """Return the progress of the first item of a slice, and the end of the slice.

        An item with a payload is sent alone.
        """
        items = self.within(path, call)
        if items is None:
            return None, stop
        if start in items:
            return items[start], start + 1
        return None, min((index for index in items if start < index < stop), default=stop)

    def drop_all(self, path: str) -> None:
        """Drop the progress of items of a finished parent."""
        for place in [place for place in self.batches if place[0] == path]:
            for index in list(self.batches[place]):
                self.drop(*place, index)

    def within(self, path: str, call: int) -> dict[int, ItemProgress] | None:
        """Return the progress of items of a batch, if any."""
        return self.batches.get((path, call)) if self.batches else None

    def drop(self, path: str, call: int, index: int) -> None:
        """Drop the progress of an item, and erase its record."""
        batch = self.batches[path, call]
        self.stale.append(batch.pop(index).key)
        if not batch:
            del self.batches[path, call]
