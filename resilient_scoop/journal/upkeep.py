"""Decides when a journal is compacted, and reports it.

A journal is compacted when half of the data file is free space and it is not small, or on request,
by a file in the journal's folder (`rscoop journal compact` of a live run). A failed compaction (no
space, a damaged record) is reported once, and tried again after a minute, then after two, up to an
hour.
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
from resilient_scoop.journal.store import JournalStore, page_use

COMPACT_BYTES_MIN: Final = 16 << 20
"""Smaller files are not compacted."""
WANTED_FILE: Final = "compact.wanted"
"""Asks the process that holds the journal to compact it; it is removed after the attempt."""
REFUSED_FILE: Final = "compact.refused"
"""The reason of a failure."""
LOOK_S: Final = 0.5
_WAIT_S: Final = 0.02
_AGAIN_S: Final = 60.0
_AGAIN_S_MAX: Final = 3600.0


class CanSwap(Protocol):
    """The part of a journal that is needed here."""

    directory: Path
    store: JournalStore
    data: str
    notes: deque[str]

    def take_place(self, new: JournalStore, folder: str) -> None:
        """Replace the open data file by another one."""


class Upkeep:
    """Compacts one journal; used only by its writer thread."""

    def __init__(self, journal: CanSwap) -> None:
        self._journal = journal
        self.bytes_min = COMPACT_BYTES_MIN
        self._compaction: Compaction | None = None
        self._not_before = 0.0
        self._again_s = _AGAIN_S

    def tend(self) -> float:
        """Work for some milliseconds; return in how many seconds to call again."""
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
        """Compact now; there must be no commits during that time.

        Raises:
            JournalError: it failed; the text says why.
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
        """Note what was committed during a compaction."""
        if self._compaction is None:
            return
        try:
            self._compaction.note(changes, kept)
        except GivenUpError as error:
            self._give_up(str(error))

    def close(self) -> None:
        """Remove everything of a running compaction."""
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
        """Give up, report it the first time, and wait longer each time."""
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
                wanted.with_name(REFUSED_FILE).write_text(reason, "utf-8")
            wanted.unlink(missing_ok=True)
