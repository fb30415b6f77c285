"""The end of commands in child processes."""

from __future__ import annotations

import os
import signal

import pytest

from resilient_scoop.hosts.child import ChildPipe


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
