"""What the workers of a run are executing right now, seen from outside.

Read from their flight records: it costs the run nothing, and works while its broker does not.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from resilient_scoop import ids
from resilient_scoop.adapters.flight_record import FlightRecord

_ENTRY: Final = "resilient_scoop.runtime.proc"


@dataclass(frozen=True, slots=True)
class Busy:
    """One process of a run; `path` is empty while it executes nothing."""

    name: str
    pid: int
    path: str
    since_s: float  # for how long it has been in this slice

    @property
    def text(self) -> str:
        """What it does, for eyes."""
        return (
            f"{self.name} is in {self.path} ({self.since_s:.1f} s)"
            if self.path
            else (f"{self.name} is idle")
        )


def busy(run_id: str) -> list[Busy]:
    """Return the run's workers on this host, and the script's process, by name."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().decode("utf-8", "replace").split("\0")
        except OSError:
            continue  # it has just ended
        if _ENTRY not in words:
            continue
        at = words.index(_ENTRY)
        role, run, name = (*words[at + 1 : at + 4], "", "", "")[:3]
        if run == run_id and role in ("worker", "origin"):
            found.append(_look(int(folder.name), name or role))
    return sorted(found, key=lambda each: (len(each.name), each.name))


def _look(pid: int, name: str) -> Busy:
    record = FlightRecord.of_process(pid)
    on_cpu = None if record is None else record.read()
    if record is not None:
        record.close()
    if on_cpu is None:
        return Busy(name, pid, "", 0.0)
    path = ids.ROOT if not on_cpu.parent else ids.item_path(on_cpu.parent, on_cpu.call, on_cpu.item)
    return Busy(name, pid, path, (time.monotonic_ns() - on_cpu.since_ns) / 1e9)
