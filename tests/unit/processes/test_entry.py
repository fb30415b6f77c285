"""The entry point of a run's processes: a limit that is reached is reported once."""

from __future__ import annotations

import errno
import os
import subprocess
import sys

import pytest

from resilient_scoop.core.endings import REFUSED
from resilient_scoop.processes import REFUSAL_REPORTED, entry, starting
from resilient_scoop.processes.options import RunOptions


class Ended(BaseException):
    """Raised where the process would end."""


def _end(code: int) -> None:
    raise Ended(code)


def _refuse() -> int:
    raise OSError(errno.EMFILE, "Too many open files")


@pytest.mark.parametrize("again", [False, True])
def test_a_start_after_a_refused_one_does_not_report_the_refusal(
    *, again: bool, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    # Given the settings with which a process is started
    started: list[dict[str, str]] = []
    monkeypatch.setattr(subprocess, "Popen", lambda *_, env, **__: started.append(env))
    script = starting.ScriptSpec(script="s.py")
    settings = starting.ChildSettings(
        run_dir="r",
        run_id="r",
        run_key="r-1",
        run=b"r" * 16,
        seed=1,
        script=script,
        options=RunOptions(workers=1),
    )
    starting.start("origin", settings, refusal_reported=again)
    added = {name: value for name, value in started[0].items() if name not in os.environ}
    for name, value in added.items():
        monkeypatch.setenv(name, value)

    # When it reaches a limit
    monkeypatch.setattr(entry, "_run", _refuse)
    monkeypatch.setattr(os, "_exit", _end)
    monkeypatch.setattr(sys, "argv", ["proc", "origin", "r"])
    with pytest.raises(Ended, match=str(REFUSED)):
        entry.main()

    # Then it reports this unless it was reported, and does not pass the mark on
    errors = capfd.readouterr().err
    assert errors == (
        "" if again else "rscoop: origin: too many open files; `ulimit -n` raises it\n"
    )
    assert REFUSAL_REPORTED not in os.environ
