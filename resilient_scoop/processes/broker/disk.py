"""What the broker reports about a full disk; and how a broker waits for space before it starts."""

from __future__ import annotations

import errno
import os
import select
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from resilient_scoop.adapters.flight_record import FlightRecord
from resilient_scoop.adapters.free_space import free_text
from resilient_scoop.counts import counted
from resilient_scoop.processes.disk_space import FILE_LIMIT, LOOK_S, missing_space_text
from resilient_scoop.runs.reports import Report
from resilient_scoop.wire.messages import NoRoom

if TYPE_CHECKING:
    from collections.abc import Collection

QUIET_S: Final = 1.0
"""Space comes and goes with argument files: changes within this time are reported once."""
BEGIN_BYTES: Final = 1 << 16
"""More than opening the journal takes."""
_JOURNAL: Final = NoRoom(1, "the journal")
_AT_LIMIT: Final = NoRoom(1, "the journal", FILE_LIMIT)
_TOO_LARGE: Final = os.strerror(errno.EFBIG)


class Disk:
    """The disk of one run's folder."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self._waiting = 0  # processes that wait for space, including the broker
        self.at_limit = False  # the cause is the limit on the size of a file, not the disk
        self._is_reported = False
        self._well_at = 0.0  # time since which no process waits
        self._what = ""
        self._record = FlightRecord.create("broker")  # for `rscoop status` and `why`

    def look(self, roomless: Collection[NoRoom], *, journal: bool, reason: str = "") -> str:
        """Record which processes wait for space; return a message to report, if any.

        `reason` is the error of the system for the journal.
        """
        self._waiting = len(roomless) + journal
        limited = journal and _TOO_LARGE in reason
        self.at_limit = limited or any(each.reason == FILE_LIMIT for each in roomless)
        self._record.wait_for_space(int(journal))
        now = time.monotonic()
        if self._waiting:
            self._well_at = now
            if self._is_reported:
                return ""
            self._is_reported = True
            most = max(roomless, key=lambda each: each.size_bytes, default=_JOURNAL)
            need = most if not journal else _AT_LIMIT if limited else _JOURNAL
            self._what = need.what if journal else "it"
            if self.at_limit:
                return (
                    f"{need.what} in {self.folder} would be larger than a file may be here (`ulimit -f`): "
                    "nothing new is started, nothing is lost; stop the run (Ctrl-C), raise the limit, "
                    "then resume"
                )
            return (
                f"{missing_space_text(need, self.folder)}: nothing new is started, nothing is lost; the "
                "run continues when there is room (`rscoop gc` removes old runs)"
            )
        quiet_s = QUIET_S if self._what != _JOURNAL.what else 0.0
        if not self._is_reported or now - self._well_at < quiet_s:
            return ""
        self._is_reported = False
        return f"there is room for {self._what} again; the run continues"

    def full(self) -> str:
        """Return the text for the progress line; empty if there is space."""
        if not self._waiting:
            return ""
        who = counted(self._waiting, "process waits", "processes wait")
        if self.at_limit:
            return f"a file may not grow (`ulimit -f`), {who}"
        return f"disk full, {free_text(self.folder)}, {who}"


def wait_for_room(folder: str) -> bool:
    """Wait until the journal in the run's folder can be opened; return False if the wait is to end.

    Standard input and output are connected to the launcher, as in `processes.broker.main`. Other
    errors are left to the opening of the journal, which names them.
    """
    disk: Disk | None = None
    while not _has_room(Path(folder)):
        disk = disk or Disk(folder)
        note = disk.look((), journal=True)
        for report in [Report(note=note)] if note else [], [Report(full=disk.full())]:
            os.write(1, b"".join(msgspec.json.encode(each) + b"\n" for each in report))
        if select.select([0], [], [], 2 * LOOK_S)[0]:
            asked = os.read(0, 4096)
            if not asked or asked.startswith(b"stop"):
                return False
    return True


def _has_room(folder: Path) -> bool:
    probe = folder / "room.tmp"
    try:
        fd = os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            os.write(fd, bytes(BEGIN_BYTES))
            os.fsync(fd)
        finally:
            os.close(fd)
            probe.unlink()
    except OSError as error:
        return error.errno not in (errno.ENOSPC, errno.EDQUOT)
    return True
