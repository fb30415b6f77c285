"""What the processes of a run are executing now, observed from outside.

Read from /proc and from their flight records: this costs the run nothing, and works even if its
broker does not.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from resilient_scoop import ids
from resilient_scoop.adapters.flight_record import FlightRecord
from resilient_scoop.adapters.import_stack import REPORT_S as IMPORT_REPORT_S
from resilient_scoop.counts import sized

_ENTRY: Final = "resilient_scoop.processes.entry"
_ROLES: Final = ("broker", "agent", "worker", "origin")
_STOPPED: Final = "Tt"


@dataclass(frozen=True, slots=True)
class ExecutingProcess:
    """One process of a run; `path` is empty while it executes nothing."""

    name: str
    pid: int
    path: str
    since_s: float  # seconds in this slice
    state: str = "R"  # from /proc
    needed_bytes: int = 0  # bytes of disk space that it waits for
    imports_s: float = 0.0  # seconds in the import of the script

    @property
    def is_stopped(self) -> bool:
        """Whether it was stopped (SIGSTOP, a debugger)."""
        return self.state in _STOPPED

    @property
    def who(self) -> str:
        """Its name, for display."""
        return who(self.name, self.pid)

    @property
    def trouble(self) -> str:
        """What blocks it, for display; empty if nothing does."""
        if self.is_stopped:
            return f"{self.who} is stopped; to let it continue: kill -CONT {self.pid}"
        if self.needed_bytes:
            need = "the journal" if self.name == "broker" else sized(self.needed_bytes)
            return f"{self.who} waits until the disk has space for {need}"
        if self.imports_s > IMPORT_REPORT_S:
            return (
                f"{self.who} has been importing the script for {self.imports_s:.0f} s; where it is: "
                f"`rscoop logs --worker {self.name}`; if it hangs: stop the run, correct the import, resume"
            )
        return ""

    @property
    def text(self) -> str:
        """Its activity, for display."""
        if self.trouble:
            return self.trouble
        if self.imports_s:
            return f"{self.name} imports the script ({self.imports_s:.1f} s)"
        return (
            f"{self.name} is in {self.path} ({self.since_s:.1f} s)"
            if self.path
            else ("the script waits" if self.name == "origin" else f"{self.name} is idle")
        )


def who(name: str, pid: int) -> str:
    """Return the name of a process, for display."""
    title = {"origin": "the script's process", "broker": "the broker", "agent": "the agent"}
    return f"{title.get(name, f'worker {name}')} (process {pid})"


def state_of(pid: int) -> str:
    """Return the state of a process from /proc: `T` stopped, `Z` gone or ending."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace")
    except OSError:
        return "Z"
    return stat.rpartition(") ")[2][:1]


def processes(run_key: str) -> list[ExecutingProcess]:
    """Return the processes of a run (`RunDir.key`) on this host, except its launcher, by name."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().decode("utf-8", "replace").split("\0")
        except OSError:
            continue  # it has ended
        if _ENTRY not in words:
            continue
        at = words.index(_ENTRY)
        role, run, name = (*words[at + 1 : at + 4], "", "", "")[:3]
        if run == run_key and role in _ROLES:
            found.append(_look(int(folder.name), name or role))
    return sorted(found, key=lambda each: (len(each.name), each.name))


def executing_processes(everybody: list[ExecutingProcess]) -> list[ExecutingProcess]:
    """Return the workers and the script's process among the processes of a run."""
    return [each for each in everybody if each.name not in ("broker", "agent")]


def _look(pid: int, name: str) -> ExecutingProcess:
    state, needed_bytes = state_of(pid), 0
    record = FlightRecord.of_process(pid) if name != "agent" else None  # it has those of all
    on_cpu, imports_s = None if record is None else record.read(), 0.0
    if record is not None:
        needed_bytes = record.needed_bytes
        imports_s = record.starts_s if name not in ("origin", "broker") else 0.0
        record.close()
    if on_cpu is None:
        return ExecutingProcess(name, pid, "", 0.0, state, needed_bytes, imports_s)
    path = ids.ROOT if not on_cpu.parent else ids.item_path(on_cpu.parent, on_cpu.call, on_cpu.item)
    since_s = (time.monotonic_ns() - on_cpu.since_ns) / 1e9
    return ExecutingProcess(name, pid, path, since_s, state, needed_bytes)
