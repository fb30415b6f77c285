"""The notes of an agent to the user, word by word."""

from __future__ import annotations

import typing
from pathlib import Path

import pytest

from resilient_scoop.core import agent
from resilient_scoop.core.agent import Note
from resilient_scoop.processes.agent.notes import text_of

LOGS = Path("/run/logs")
MISSING = "worker w1 cannot import the script: No module named 'm'. No item was run"
TEXTS: dict[Note, str] = {
    agent.CannotStart("w1", "no memory"): "w1 cannot start: no memory; trying again every second",
    agent.ProcessesRefused("worker", "no memory"): (
        "the run stops, because its worker cannot be started: no memory"
    ),
    agent.Stillborn("w1", 5, -9, oom=True): (
        "w1 cannot start: it ended 5 times during its start (killed by SIGKILL, out of memory), most "
        "likely while it imported the script; see the logs in /run/logs. Nothing is lost: correct "
        "the cause, then `rscoop resume abc`"
    ),
    agent.Died("worker", "w1", -11, oom=False): (
        "w1 died (killed by SIGSEGV); it is replaced, and its calls run again"
    ),
    agent.Died("worker", "w1", -9, oom=True): (
        "w1 died (out of memory); it is replaced, and its calls run again"
    ),
    agent.Died("origin", "origin", 3, oom=False): (
        "the script's process died (exit status 3); it is started again and continues there"
    ),
    agent.Freed("w1"): (
        "w1 is restarted, because its tasks wait for each other's locks; from now on it runs the "
        "script's calls one after another"
    ),
    agent.ImportFails(MISSING, 2.0): (
        "worker w1 cannot import the script: No module named 'm'. Other workers run; this one tries "
        "again in 2 s"
    ),
    agent.Paused("worker", "w1", 7): (
        "worker w1 (process 7) is stopped: nothing is lost, and other workers take over its items; "
        "to let it continue: kill -CONT 7"
    ),
    agent.Paused("origin", "origin", 7): (
        "the script's process (process 7) is stopped: nothing is lost; to let it continue: "
        "kill -CONT 7"
    ),
    agent.Continued("w1", 7): "worker w1 (process 7) runs again",
    agent.Slept(3600.4): (
        "this host was asleep or stopped for 3600 s; its workers ask the broker before they start a call"
    ),
    agent.Orphaned(900.0): (
        "no message from the broker for 900 s: the agent ends. `rscoop resume abc` continues the run"
    ),
    agent.NotKept(): (
        "neither memory nor disk of this host has space for more copies of results that the broker has not "
        "acknowledged: if a worker dies now, its finished results are lost and computed again; free some "
        "space in /var/tmp on this host, or name another folder with RSCOOP_HOST_DIR"
    ),
    agent.DamagedCopies(2): (
        "2 files with results of a worker that has ended cannot be read on this host; they are computed "
        "again"
    ),
    agent.EndsLate("w1"): (
        "w1 was killed: an exit handler, a finalizer or a thread of the script's code was still running "
        "10 s after the end of the run"
    ),
}


@pytest.mark.parametrize("note", TEXTS, ids=lambda note: type(note).__name__)
def test_a_note_has_its_text(note: Note) -> None:
    assert text_of(note, LOGS, "abc") == TEXTS[note]


def test_a_long_import_is_reported_with_its_process() -> None:
    text = text_of(agent.ImportIsLong("w1", 1 << 30), Path("/nowhere"), "abc")
    assert text.startswith(f"worker w1 (process {1 << 30}) has been importing the script for 60 s")


def test_every_note_has_a_case_in_this_test() -> None:
    looked_at = {type(note) for note in TEXTS} | {agent.ImportIsLong}
    assert looked_at == set(typing.get_args(Note))
