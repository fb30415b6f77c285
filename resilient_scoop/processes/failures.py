"""Messages of the launcher for failures of the system and of its processes."""

from __future__ import annotations

import errno
import signal
from typing import TYPE_CHECKING

from resilient_scoop.core.endings import REFUSED
from resilient_scoop.counts import counted

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from resilient_scoop.wire.messages import ProcessLost


_LIMITS = {
    errno.EMFILE: "too many open files; `ulimit -n` raises it",
    errno.ENFILE: "too many open files on this host",
    errno.EAGAIN: "too many processes or threads; see `ulimit -u`",
    errno.ENOMEM: "no more memory; see `ulimit -v`",
    errno.EACCES: "permission denied",
    errno.EPERM: "permission denied",
    errno.EROFS: "read-only file system",
    errno.ENOSPC: "no space left on the disk",
    errno.EDQUOT: "no space left in the disk quota",
    errno.EFBIG: "a file has reached the limit of its size; see `ulimit -f`",
}


def refusal(error: OSError) -> str:
    """Return what the system refused, and which limit to raise."""
    return f"the system refused a resource: {limit_met(error) or error}"


def limit_met(error: BaseException) -> str | None:
    """Return, for display, the limit of the system that an error reports; None if it is another error."""
    if isinstance(error, MemoryError):
        return _LIMITS[errno.ENOMEM]
    if isinstance(error, RuntimeError) and "start new thread" in str(error):
        return f"{_LIMITS[errno.EAGAIN]} and `ulimit -v`"  # a thread's stack takes address space
    if not isinstance(error, OSError) or error.errno not in _LIMITS:
        return None
    return f"{f'{error.filename}: ' if error.filename else ''}{_LIMITS[error.errno]}"


def last_lines(log: Path) -> str:
    """Return, for display, a colon and the last line of a log; empty if there is none."""
    try:
        lines = log.read_text("utf-8", "replace").split("\n")
    except OSError:
        return ""
    return next((f": {line.strip()}" for line in reversed(lines) if line.strip()), "")


def how(code: int) -> str:
    """Return, for display, how a process ended."""
    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"


def script_dies(deaths: Sequence[ProcessLost], run_id: str) -> str:
    """Return why the script's process is not started again."""
    last, times = deaths[-1], counted(len(deaths), "time")
    died = how(last.exit) + (", out of memory" if last.reason == "oom" else "")
    if last.exit == -signal.SIGKILL:
        what = f"the script's process was ended {times} ({died})"
        why = "find out what kills it: the system (out of memory), a limit, or the script itself"
    else:
        what = f"the script ended its own process {times} ({died})"
        why = "look outside of tasks for native code that crashes, or for os._exit"
    return (
        f"{what} and made no progress in between: the run stops, and nothing is lost; {why}. "
        f"`rscoop resume {run_id}` starts it again"
    )


def hopeless(role: str, deaths: int, code: int, logs: Path) -> str:
    """Return why a process is not started again."""
    last = last_lines(logs / f"{role}.log")
    if code == REFUSED:
        limit = last.removeprefix(f": rscoop: {role}: ")
        return f"the {role} cannot start, tried {counted(deaths, 'time')}{f': {limit}' if limit else ''}"
    return f"the {role} died {counted(deaths, 'time')} in a row ({how(code)}{last}); see {logs}"


def hopeless_loop(kills: int, run_id: str) -> str:
    """Return why a broker that failed repeatedly is not started again."""
    return (
        f"the broker failed {counted(kills, 'time')} and will not be restarted; acknowledged results are "
        f"safe: `rscoop journal verify {run_id}` checks them, `rscoop resume {run_id}` continues the run"
    )
