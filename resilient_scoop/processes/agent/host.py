"""Reads from the host why processes were killed, and their last messages."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from resilient_scoop.core.endings import CANNOT_IMPORT, REFUSED
from resilient_scoop.processes.failures import last_lines

if TYPE_CHECKING:
    from resilient_scoop.core.agent import Slot


def oom_kills() -> int:
    """Return how many processes the kernel of this host has killed for memory since its boot."""
    try:
        lines = Path("/proc/vmstat").read_text("ascii").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)


def reported_reason(slot: Slot, code: int, logs: Path) -> str:
    """Return the process's own message why it could not start; empty if there is none."""
    log = logs / f"{slot.name}.log"
    if code == CANNOT_IMPORT:
        last = last_lines(log).partition("rscoop: ")[2]  # after its mark
        return last or f"{slot.name} cannot import the script; see the logs in {logs}"
    if code == REFUSED:
        last = last_lines(log) if slot.role == "worker" else ""
        return last.removeprefix(f": rscoop: {slot.name}: ") or "see above"
    return ""
