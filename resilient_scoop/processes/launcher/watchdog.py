"""Watch whether broker and agent report; silence is measured in time in which the launcher ran.

Only time in which the launcher itself ran counts: at most `LOOK_S` between two checks. So no
process is killed after a laptop slept, a control group was frozen, or a terminal blocked the
launcher. The state of a silent process is read from /proc:

  stopped (SIGSTOP, a debugger)   reported; never killed: whoever stopped it will continue it
  waits for a disk (state D)      reported; never killed: that would not help, and it may recover
  computes                        reported after `REPORT_S`; killed after `KILL_S` if it had the
                                  CPU meanwhile
  sleeps                          the same, but the agent is only reported: it may wait for a
                                  blocked terminal

A killed broker is restarted from the journal like a crashed one: its successor is started only
after it has ended, and the kernel holds the journal's lock. A broker that has not reported since
its start may be reading a long journal, and is not killed.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

REPORT_S: Final = 10.0
KILL_S: Final = 60.0
OPENING_S: Final = 60.0
LOOK_S: Final = 1.5
_BURNT: Final = 0.4
"""Share of the time from `REPORT_S` to `KILL_S` on a CPU from which a process counts as in a loop."""
KILLS_MAX: Final = 3
WELL_S: Final = 600.0
"""Kills further apart than this are unrelated."""


@dataclass(frozen=True, slots=True)
class Picture:
    """The state of a process: `T` stopped, `D` in the kernel, `R` computing, `S` asleep, `Z` ending."""

    state: str
    cpu_s: float


def look_at(pid: int) -> Picture:
    """Return the state of a process; all its threads count."""
    states, cpu_s = set[str](), 0.0
    try:
        for task in Path(f"/proc/{pid}/task").iterdir():
            stat = (task / "stat").read_text("utf-8", "replace").rpartition(") ")[2].split()
            states.add(stat[0].upper())
            cpu_s += (int(stat[11]) + int(stat[12])) / os.sysconf("SC_CLK_TCK")
    except OSError:
        return Picture("Z", 0.0)  # it is ending
    return Picture(next((state for state in "TDRS" if state in states), "Z"), cpu_s)


@dataclass(slots=True)
class Watchdog:
    """The silence of one process."""

    role: str
    tell_user: Callable[[str], None]
    look: Callable[[int], Picture] = look_at
    kills_sleepers: bool = True
    silent_s: float = 0.0
    spoke: bool = False  # since it was started
    kills: int = 0  # at most `WELL_S` apart
    _seen: str = ""  # what was reported about it
    _look_at_s: float = 0.0  # length of the silence at the next check
    _cpu_s: float = -1.0  # its CPU time at the first check of this silence
    _well_s: float = 0.0  # since it was last killed

    def started(self) -> None:
        """Watch another process in its place."""
        self.silent_s, self.spoke, self._seen = 0.0, False, ""
        self._look_at_s, self._cpu_s = 0.0, -1.0

    def heard(self) -> None:
        """Note that it has reported."""
        if self._seen:
            self.tell_user(f"the {self.role} reports again")
        self.started()
        self.spoke = True

    def tick(self, pid: int, ran_s: float) -> bool:
        """Count time in which the launcher ran without a report; return whether to kill the process now."""
        self.silent_s += min(ran_s, LOOK_S)
        self._well_s += min(ran_s, LOOK_S)
        if self._well_s > WELL_S:
            self.kills = 0
        if self.silent_s < max(REPORT_S, self._look_at_s):
            return False
        picture, self._look_at_s = self.look(pid), self.silent_s + 1.0
        if picture.state in "TDZ":
            self.silent_s, self._look_at_s, self._cpu_s = REPORT_S, REPORT_S + 1.0, -1.0
            self._report_state(picture.state, pid)
            return False
        if self._cpu_s < 0:
            self._cpu_s = picture.cpu_s
        if not self.spoke:
            if self.silent_s >= OPENING_S:
                self._report_state("opening", pid)
            return False
        self._report_state("R" if picture.state == "R" else "S", pid)
        return self.silent_s >= KILL_S and self._is_to_die(picture)

    def _is_to_die(self, picture: Picture) -> bool:
        looping = picture.cpu_s - self._cpu_s >= _BURNT * (KILL_S - REPORT_S)
        if not (looping or (self.kills_sleepers and picture.state == "S")):
            return False
        self.kills, self._well_s, self._seen = self.kills + 1, 0.0, ""
        self.tell_user(
            f"the {self.role} has not reported for {KILL_S:.0f} s; it is killed and restarted"
        )
        return True

    def _report_state(self, what: str, pid: int) -> None:
        if what == self._seen or (what in "RS" and self._seen in ("R", "S")) or what == "Z":
            return
        self._seen = what
        who = f"the {self.role} (process {pid})"
        if what == "T":
            self.tell_user(
                f"{who} is stopped (SIGSTOP): nothing is lost; to let it continue: kill -CONT {pid}"
            )
        elif what == "D":
            self.tell_user(
                f"{who} waits for a disk that does not answer; the run continues when the disk does; "
                f"if it never does: stop with Ctrl-C, repair the disk, and resume"
            )
        elif what == "opening":
            self.tell_user(
                f"{who} has not reported {OPENING_S:.0f} s after starting (reading a long journal "
                f"can take that long); to force a safe restart: kill -9 {pid}"
            )
        else:
            then = f"after {KILL_S:.0f} s it is killed and restarted, which loses nothing"
            if what == "S" and not self.kills_sleepers:
                then = f"if it does not continue, force a safe restart: kill -9 {pid}"
            self.tell_user(f"{who} has not reported for {REPORT_S:.0f} s; {then}")
