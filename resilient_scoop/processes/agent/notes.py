"""Texts of an agent's messages to the user."""

from __future__ import annotations

from typing import TYPE_CHECKING, assert_never

from resilient_scoop.adapters import import_stack
from resilient_scoop.core import agent
from resilient_scoop.counts import counted
from resilient_scoop.processes.failures import how
from resilient_scoop.runs.executing import who

if TYPE_CHECKING:
    from pathlib import Path


def text_of(note: agent.Note, logs: Path, run_id: str) -> str:  # noqa: C901, PLR0911, PLR0912 - one text each
    """Return the text of a note; for a long import, with the present line of the process."""
    match note:
        case agent.CannotStart(name=name, why=why):
            return f"{name} cannot start: {why}; trying again every second"
        case agent.ProcessesRefused(role=role, why=why):
            return f"the run stops, because its {role} cannot be started: {why}"
        case agent.Stillborn():
            return _stillborn(note, logs, run_id)
        case agent.Died(role="origin", code=code):
            return (
                f"the script's process died ({how(code)}); it is started again and continues there"
            )
        case agent.Died(name=name, code=code, oom=oom):
            died_of = "out of memory" if oom else how(code)
            return f"{name} died ({died_of}); it is replaced, and its calls run again"
        case agent.Freed(name=name):
            return (
                f"{name} is restarted, because its tasks wait for each other's locks; from now "
                "on it runs the script's calls one after another"
            )
        case agent.ImportFails(why=why, wait_s=wait_s):
            cause = why.partition(". No item")[0]
            return f"{cause}. Other workers run; this one tries again in {wait_s:.0f} s"
        case agent.ImportIsLong(name=name, pid=pid):
            return import_stack.describe(name, pid, logs / f"{name}.log", run_id)
        case agent.Paused(role=role, name=name, pid=pid):
            more = "" if role == "origin" else ", and other workers take over its items"
            return (
                f"{who(name, pid)} is stopped: nothing is lost{more}; to let it continue: "
                f"kill -CONT {pid}"
            )
        case agent.Continued(name=name, pid=pid):
            return f"{who(name, pid)} runs again"
        case agent.EndsLate(name=name):
            return (
                f"{name} was killed: an exit handler, a finalizer or a thread of the script's code was "
                f"still running {agent.EXIT_S:.0f} s after the end of the run"
            )
        case agent.Slept(seconds=seconds):
            return (
                f"this host was asleep or stopped for {seconds:.0f} s; its workers ask the broker before "
                "they start a call"
            )
        case agent.NotKept():
            return (
                "neither memory nor disk of this host has space for more copies of results that the broker "
                "has not acknowledged: if a worker dies now, its finished results are lost and computed "
                "again; free some space in /var/tmp on this host, or name another folder with "
                "RSCOOP_HOST_DIR"
            )
        case agent.DamagedCopies(bundles=bundles):
            return (
                f"{counted(bundles, 'file')} with results of a worker that has ended cannot be read on "
                "this host; they are computed again"
            )
        case agent.Orphaned(seconds=seconds):
            return (
                f"no message from the broker for {seconds:.0f} s: the agent ends. `rscoop resume "
                f"{run_id}` continues the run"
            )
        case _:
            assert_never(note)


def _stillborn(note: agent.Stillborn, logs: Path, run_id: str) -> str:
    death = how(note.code) + (", out of memory" if note.oom else "")
    return (
        f"{note.name} cannot start: it ended {counted(note.times, 'time')} during its start "
        f"({death}), most likely while it imported the script; see the logs in {logs}. Nothing "
        f"is lost: correct the cause, then `rscoop resume {run_id}`"
    )
