"""The end of commands in child processes."""

from __future__ import annotations

import os
import signal

import pytest

from resilient_scoop.hosts.child import ChildPipe
from resilient_scoop.hosts.door import OUTPUT_BYTES_MAX, run_on


def test_a_command_is_killed_with_its_child_processes() -> None:
    pipe = ChildPipe(["/bin/sh", "-c", "sleep 60 & echo begun; wait"])
    lines = pipe.lines()
    assert next(lines) == "begun"
    pipe.kill()
    assert list(lines) == []  # no process is left that could write
    pipe.close()
    assert pipe._process.returncode == -signal.SIGKILL


def test_no_process_is_killed_by_the_reused_id_of_an_ended_command(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A place closes its pipes at the end of the run, hours later."""
    pipe = ChildPipe(["/bin/true"])
    assert list(pipe.lines()) == []
    assert pipe.status() == 0
    killed: list[int] = []
    monkeypatch.setattr(os, "killpg", lambda pid, _: killed.append(pid))
    pipe.kill()
    pipe.close()
    assert killed == []


def test_the_last_output_of_a_short_command_is_kept() -> None:
    """A login shell may print megabytes before the command that answers."""
    done = run_on(ChildPipe(["/bin/sh", "-c", "yes text | head -c 2000000; echo answer"]), "", 60.0)
    assert done.lines[-1] == "answer"
    assert len(done.output) <= OUTPUT_BYTES_MAX
