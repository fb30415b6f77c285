"""What the launcher shows, and its messages to a broker that has ended."""

from __future__ import annotations

import os
import subprocess
from types import SimpleNamespace

import msgspec

from resilient_scoop.processes.launcher.supervisor import ChildProcess, Launcher
from resilient_scoop.processes.stderr import ErrorStream
from resilient_scoop.runs.reports import Report


def test_a_message_to_an_ended_broker_is_dropped_without_an_error() -> None:
    launcher = Launcher.__new__(Launcher)
    with subprocess.Popen(["true"], stdin=subprocess.PIPE) as process:
        process.wait()
        launcher.broker = ChildProcess("broker", process)

        launcher._tell_broker("over alice 61ff left")

        assert process.stdin is not None
        process.stdin.close()  # this would write the rest of a buffer


def test_a_message_is_shown_after_the_text_that_the_script_had_written() -> None:
    # Given a launcher that has shown the first line of a traceback
    shown: list[bytes] = []
    launcher = object.__new__(Launcher)
    launcher.errors = errors = ErrorStream(None, shown.append, None)
    launcher.screen, launcher.buffer, launcher.fatal_code = None, b"", 0
    launcher.shown = SimpleNamespace(count=0)  # type: ignore[assignment]
    launcher.display = SimpleNamespace(note=lambda text: shown.append(text.encode()))  # type: ignore[assignment]
    launcher.broker_watch = SimpleNamespace(heard=lambda: None)  # type: ignore[assignment]
    launcher._show = lambda: None  # type: ignore[method-assign]
    launcher.reports_fd, broker = os.pipe()
    os.write(errors.theirs, b"Traceback (most recent call last):\n")
    errors.hear()
    launcher._show_errors(errors)

    # When the rest of it, and a message of the broker, arrive together
    os.write(errors.theirs, b"NameError\n")
    os.write(broker, msgspec.json.encode(Report(note="the script failed")) + b"\n")
    launcher._hear_reports()

    # Then the message follows the traceback
    assert b"".join(shown) == b"Traceback (most recent call last):\nNameError\nthe script failed"
    errors.close()
    os.close(broker)
    os.close(launcher.reports_fd)
