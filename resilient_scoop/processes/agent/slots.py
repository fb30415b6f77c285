"""The places for an agent's processes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from resilient_scoop.runs.executing import state_of, who

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable

    from resilient_scoop.adapters.flight_record import FlightRecord
    from resilient_scoop.wire import messages as wire

SAY_STOPPED_S: Final = 3.0


@dataclass(slots=True, eq=False)
class Slot:
    """A place for a process: which one is in it, and when the next may be started."""

    role: str
    name: str
    process: subprocess.Popen[bytes] | None = None
    incarnation: bytes = b""
    record: FlightRecord | None = None
    pidfd: int = -1
    started_at: float = 0.0
    start_at: float = 0.0
    refused_at: float = 0.0  # since when the system has had no room for it
    hasty: int = 0  # how often in a row it died at once, and came no further
    reached: int = 0  # how far the script has come (`FlightRecord.reach`)
    stillborn: int = 0  # how often in a row it ended before it came to its work
    unfit: int = 0  # how often in a row it could not import the script
    killed_for: str = ""
    ended: bool = False  # its work is done: it has no successor
    late: bool = False  # it was said that it does not end
    freed: int = 0  # how often it could only be freed of a lock by its end
    import_said: bool = False  # that it imports the script for very long
    stopped_s: float = 0.0  # for how long it has been stopped (SIGSTOP), as far as we ran

    def executes(self, attempt: wire.Attempt | None) -> bool:
        """Tell whether a process is there and, if an attempt is given, is in the middle of it."""
        if self.process is None or self.record is None or attempt is None:
            return self.process is not None
        on_cpu = self.record.read()
        return on_cpu is not None and (on_cpu.epoch, on_cpu.no) == (attempt.epoch, attempt.no)

    def look(self, passed_s: float, say: Callable[[str], None]) -> bool:
        """Return whether the kernel lets the process run; say if it was stopped for long."""
        assert self.process is not None, "only a started process runs"
        state, before = state_of(self.process.pid), self.stopped_s
        title = who(self.name, self.process.pid)
        if state not in "Tt":
            self.stopped_s = 0.0
            if before >= SAY_STOPPED_S:
                say(f"{title} runs again")
            return state not in "ZX"
        self.stopped_s += passed_s
        if before < SAY_STOPPED_S <= self.stopped_s:
            more = "" if self.role == "origin" else ", and other workers take over its items"
            say(
                f"{title} is stopped: nothing is lost{more}; to let it continue: "
                f"kill -CONT {self.process.pid}"
            )
        return False


def oom_kills() -> int:
    """Return how many processes the kernel of this host has killed for memory since its boot."""
    try:
        lines = Path("/proc/vmstat").read_text("ascii").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)
