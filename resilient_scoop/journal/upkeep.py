"""When a journal is compacted, and what is said of it.

By itself when half of the data file is free space and it is not small; or because somebody asked, by
a file in the journal's folder (`rscoop journal compact` of a live run). One that was given up (no
space, a damaged record) is said once, and tried again after a minute, then after two, up to an hour.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, Protocol

from resilient_scoop.core.compaction import GivenUpError
from resilient_scoop.core.events import Change
from resilient_scoop.errors import JournalError
from resilient_scoop.journal.compact import Compaction
from resilient_scoop.journal.place import compact_folder, compact_number
from resilient_scoop.journal.store import Store, page_use

COMPACT_BYTES_MIN: Final = 16 << 20
"""Smaller files are left as they are."""
WANTED_FILE: Final = "compact.wanted"
"""Asks the process that holds the journal to compact it; it goes when that was tried."""
REFUSED_FILE: Final = "compact.refused"
"""Why it could not be done."""
LOOK_S: Final = 0.5
_WAIT_S: Final = 0.02
_AGAIN_S: Final = 60.0
_AGAIN_S_MAX: Final = 3600.0


class CanSwap(Protocol):
    """What is needed of a journal."""

    directory: Path
    store: Store
    data: str
    notes: deque[str]

    def take_place(self, new: Store, folder: str) -> None:
        """Put a data file in the place of the one that is open."""


class Upkeep:
    """Compacts one journal; used by the thread that writes to it, and by no other."""

    def __init__(self, journal: CanSwap) -> None:
        self._journal = journal
        self.bytes_min = COMPACT_BYTES_MIN
        self._compaction: Compaction | None = None
        self._not_before = 0.0
        self._again_s = _AGAIN_S

    def tend(self) -> float:
        """Do some milliseconds of what is to be done; return in how many seconds to call again."""
        try:
            if self._compaction is None:
                return self._look()
            if not self._compaction.advance():
                return _WAIT_S if self._compaction.new is None else 0.0
            self._swap(self._compaction)
        except GivenUpError as error:
            self._give_up(str(error))
        return LOOK_S

    def compact(self) -> None:
        """Compact now; nobody commits meanwhile.

        Raises:
            JournalError: why it could not be done.
        """
        try:
            compaction = self._compaction = self._begin()
            while not compaction.advance():
                time.sleep(_WAIT_S if compaction.new is None else 0.0)
            self._swap(compaction)
        except GivenUpError as error:
            self.close()
            raise JournalError(str(self._journal.directory), "compacting", str(error)) from error

    def note(self, changes: Sequence[Change], kept: Sequence[bytes]) -> None:
        """Remember what was committed while a compaction is under way."""
        if self._compaction is None:
            return
        try:
            self._compaction.note(changes, kept)
        except GivenUpError as error:
            self._give_up(str(error))

    def close(self) -> None:
        """Leave nothing of a compaction that is under way."""
        if self._compaction is not None:
            self._compaction.give_up()
            self._compaction = None

    def _look(self) -> float:
        wanted = (self._journal.directory / WANTED_FILE).exists()
        if not wanted and (time.monotonic() < self._not_before or not self._is_due()):
            return LOOK_S
        self._compaction = self._begin()
        return _WAIT_S

    def _is_due(self) -> bool:
        store = self._journal.store
        with store.begin() as txn:
            use = page_use(store, txn)
        return use.size_bytes >= self.bytes_min and 2 * use.free >= use.pages

    def _begin(self) -> Compaction:
        journal = self._journal
        folder = journal.directory / compact_folder(compact_number(journal.data) + 1)
        return Compaction.begin(journal.directory, journal.store, folder)

    def _swap(self, compaction: Compaction) -> None:
        assert compaction.new is not None, "only a whole copy takes the place"
        assert compaction.course.may_swap, "nor one that lags behind"
        self._journal.take_place(compaction.new, compaction.folder.name)
        compaction.course.swapped()
        self._compaction = None
        self._again_s = _AGAIN_S
        (self._journal.directory / WANTED_FILE).unlink(missing_ok=True)

    def _give_up(self, reason: str) -> None:
        """Leave all as it is, say so the first time, and wait longer each time."""
        self.close()
        if self._again_s == _AGAIN_S:
            self._journal.notes.append(
                f"the journal could not be compacted: {reason}; nothing is lost, and it is tried "
                f"again later"
            )
        self._not_before = time.monotonic() + self._again_s
        self._again_s = min(2 * self._again_s, _AGAIN_S_MAX)
        wanted = self._journal.directory / WANTED_FILE
        if wanted.exists():
            with suppress(OSError):
                wanted.with_name(REFUSED_FILE).write_text(reason)
            wanted.unlink(missing_ok=True)
