"""Progress reports of a worker's items, on their way to the broker.

  RT1  The last report of an item is sent within `KEEP_S` of the one before it, or with the next flush
      after that; reports in between are replaced, not queued.
  RT2  Nothing is sent of an item whose outcome is on its way, or whose task was dropped.

An item that is tried again in the same worker (`retries=`) gets the payload of its last try.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from resilient_scoop import ids
from resilient_scoop.wire import messages as wire

if TYPE_CHECKING:
    from resilient_scoop.core.worker.work import Work

KEEP_S = 1.0
"""Least time between two sent reports of one item: each is a record of the journal."""


class _Item(msgspec.Struct):
    work: Work | None  # None: the script itself
    index: int
    progress: wire.Progress | None = None
    is_sent: bool = True
    sent_at: float = -1e9
    tries: int = 0  # earlier tries in this worker
    carried: bytes | None = None  # payload of the last try
    has_resumed: bool = False  # has asked for its payload in this try
    not_before: float = (
        -1e9
    )  # when the next payload may be made, depending on the cost of the last one


class Reporter:
    """The reports of the items of one process, by path."""

    def __init__(self) -> None:
        self.items: dict[str, _Item] = {}

    def put(
        self, path: str, work: Work | None, index: int, progress: wire.Progress, now: float
    ) -> bool:
        """Record a report; return whether it is due at once."""
        item = self._item(path, work, index)
        item.progress, item.is_sent = progress, False
        return now - item.sent_at >= KEEP_S

    def is_too_soon(self, path: str, work: Work, now: float) -> bool:
        """Return whether another payload would cost too much of the item's time."""
        item = self.items.get(path)
        return item is not None and item.work is work and now < item.not_before

    def hold_off(self, path: str, work: Work, index: int, until: float) -> None:
        """Make no payload for an item before then."""
        self._item(path, work, index).not_before = until

    def payload(self, path: str, work: Work | None) -> bytes:
        """Return the payload of an item: the last saved one, or the one that it got."""
        item = self.items.get(path)
        if item is not None and item.work is work and item.progress is not None:
            return item.progress.payload
        return self.given(path, work)

    def given(self, path: str, work: Work | None) -> bytes:
        """Return the payload from earlier attempts or tries of an item."""
        item = self.items.get(path)
        if item is not None and item.work is work and item.carried is not None:
            return item.carried
        return b"" if work is None else _task_resume(work, path)

    def resume(self, path: str, work: Work, index: int) -> bool:
        """Record that an item read its payload; return whether it is the first time."""
        item = self._item(path, work, index)
        first, item.has_resumed = not item.has_resumed, True
        return first

    def tries(self, path: str, work: Work | None) -> int:
        """Return how many tries in this worker failed before this one."""
        item = self.items.get(path)
        return item.tries if item is not None and item.work is work else 0

    def try_again(self, path: str, work: Work, index: int) -> None:
        """Record that an item has failed and is tried again here."""
        kept = self.payload(path, work)
        item = self._item(path, work, index)
        item.tries += 1
        item.carried, item.has_resumed = kept, False

    def due(self, now: float, *, everything: bool = False) -> list[bytes]:
        """Return the frames to send now (RT1), and drop ended items (RT2)."""
        frames: list[bytes] = []
        for path, item in list(self.items.items()):
            work = item.work
            if work is not None and (work.dropped or item.index not in work.left):
                del self.items[path]
            elif not item.is_sent and (everything or now - item.sent_at >= KEEP_S):
                assert item.progress is not None, "a word that is not sent was said"
                item.is_sent, item.sent_at = True, now
                frames.append(wire.encode(item.progress))
        return frames

    def _item(self, path: str, work: Work | None, index: int) -> _Item:
        item = self.items.get(path)
        if item is None or item.work is not work:
            item = self.items[path] = _Item(work, index)
        return item


def _task_resume(work: Work, path: str) -> bytes:
    task = work.task
    if task.resume and path == ids.item_path(task.parent, task.call, task.start):
        return task.resume
    return b""
