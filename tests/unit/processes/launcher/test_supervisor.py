"""The launcher's messages to a broker that has ended."""

from __future__ import annotations

import subprocess

from resilient_scoop.processes.launcher.supervisor import ChildProcess, Launcher


def test_a_message_for_a_broker_that_has_ended_is_lost_and_no_error() -> None:
    launcher = Launcher.__new__(Launcher)
    with subprocess.Popen(["true"], stdin=subprocess.PIPE) as process:
        process.wait()
        launcher.broker = ChildProcess("broker", process)

        launcher._tell_broker("over alice 61ff left")

        assert process.stdin is not None
        process.stdin.close()  # which would write what is left in a buffer
