"""`--time-limit`, and its default from the batch system.

SLURM announces when the job ends (SLURM_JOB_END_TIME, seconds since 1970), PBS how long it may run
(PBS_WALLTIME, seconds from the start of the job). LSF and Grid Engine announce neither; they send
signals, and these are handled.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from resilient_scoop.cli.base import note, parse_duration
from resilient_scoop.runs.folder import pid_started

if TYPE_CHECKING:
    from resilient_scoop.processes.options import Limit

MARGIN_S: Final = 120.0
_SHARE: Final = 0.1
"""For a short job, the margin is at most this part of its time."""
_GRACE_SHARE: Final = 0.8
"""Part of the margin for checkpoints: the rest is for the end of the run."""
_NUMBER: Final = re.compile(r"[0-9]{1,12}")
_DAYS: Final = re.compile(r"(\d+)-(\d+:\d\d:\d\d)")

_Command = TypeVar("_Command", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class TimeLimit:
    """The typed limit: seconds, or None for no limit, even if the batch system has one."""

    seconds: float | None


class TimeLimitParam(click.ParamType):  # type: ignore[type-arg,unused-ignore]  # generic in some
    """A time limit as users and batch systems write it."""

    name = "time limit"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> TimeLimit:
        """Return it; a bare number is refused, since it is minutes for some and seconds for others."""
        if isinstance(value, TimeLimit):
            return value
        text = str(value).strip()
        if text == "none":
            return TimeLimit(None)
        days = _DAYS.fullmatch(text)
        seconds = parse_duration(days[2] if days else text)
        if seconds is None or seconds <= 0:
            self.fail(
                f"{value!r} is not a time limit; write 90s, 30m, 23h50m, 1d2h, HH:MM:SS or D-HH:MM:SS, "
                f"or none",
                param, ctx,
            )  # fmt: skip
        return TimeLimit(seconds + (int(days[1]) * 86400 if days else 0))


def time_limit_option(command: _Command) -> _Command:
    """Give a command its --time-limit."""
    return click.option(
        "--time-limit", type=TimeLimitParam(), metavar="DURATION",
        help="Save checkpoints and stop after this time (23h50m, 90s, HH:MM:SS); `none`: no limit.  "
        "[default: two minutes before the batch system ends the job]",
    )(command)  # fmt: skip


def limit_of(given: TimeLimit | None) -> Limit | None:
    """Return in how many seconds the run is to hand over; report a limit that the user did not type."""
    from resilient_scoop.processes.options import Limit
    from resilient_scoop.runs.display import duration

    if given is not None:
        return None if given.seconds is None else Limit(given.seconds)
    limit = batch_left_s(os.environ, time.time())  # noqa: TID251 - what SLURM tells is wall clock
    if limit is None:
        for name in ("SLURM_JOB_END_TIME", "PBS_WALLTIME"):
            if os.environ.get(name, "").strip():
                odd = f"{name}={os.environ[name]!r:.40}"
                note(f"{odd} is not a number of seconds: no time limit; give one with --time-limit")
        return None
    source, left_s = limit
    if left_s <= 0:
        note(f"{source} is in the past: no time limit; give one with --time-limit")
        return None
    margin_s = min(MARGIN_S, _SHARE * left_s)
    note(
        f"time limit from {source}: saves checkpoints and stops in {duration(left_s - margin_s)}, "
        f"{duration(margin_s)} before the job ends (--time-limit none turns this off)"
    )
    return Limit(left_s - margin_s, _GRACE_SHARE * margin_s)


def batch_left_s(environ: Mapping[str, str], now: float) -> tuple[str, float] | None:
    """Return the variable that says how long the job has left, and the seconds; None if there is none."""
    ends = _seconds(environ.get("SLURM_JOB_END_TIME", ""))
    if ends is not None:
        return "SLURM_JOB_END_TIME", ends - now
    walltime = _seconds(environ.get("PBS_WALLTIME", ""))
    if walltime is not None:
        job = environ.get("PBS_JOBID", "")
        return "PBS_WALLTIME", walltime - _job_age_s(f"PBS_JOBID={job}".encode())
    return None


def _seconds(text: str) -> float | None:
    """Return the seconds in a variable, also from HH:MM:SS; None if it has none."""
    text = text.strip()
    return float(text) if _NUMBER.fullmatch(text) else parse_duration(text) if ":" in text else None


def _job_age_s(mark: bytes) -> float:
    """Return the age of the oldest ancestor of this process that belongs to the job."""
    pid, eldest = os.getpid(), os.getpid()
    while pid > 1:
        try:
            if mark not in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                break
            eldest = pid
            stat = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace")
        except OSError:
            break
        pid = int(stat.rpartition(")")[2].split()[1])
    began = (pid_started(eldest) or 0) / os.sysconf("SC_CLK_TCK")
    return max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - began)
