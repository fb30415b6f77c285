"""Entry point of every process that the launcher and the agents start: `… proc ROLE RUN [NAME]`."""

from __future__ import annotations

import contextlib
import os
import sys

from resilient_scoop.adapters import collector, memory_arenas
from resilient_scoop.core.endings import REFUSED
from resilient_scoop.processes import REFUSAL_REPORTED


def main() -> int:
    """Run the process; if it reaches a limit of the system, it says so and ends with `failures.REFUSED`.

    It says so once: if it is tried again every second, `REFUSAL_REPORTED` is in the environment.
    """
    reported = os.environ.pop(REFUSAL_REPORTED, "")
    try:
        return _run()
    except (OSError, MemoryError, RuntimeError) as error:
        from resilient_scoop.processes.failures import limit_met

        limit = limit_met(error)
        if limit is None:
            raise
        if not reported:
            with contextlib.suppress(OSError):  # a full disk: the log cannot be written
                os.write(2, f"rscoop: {' '.join(sys.argv[3:]) or sys.argv[1]}: {limit}\n".encode())
        os._exit(REFUSED)  # even if threads are running


def _run() -> int:
    """Run the process that the command line names; its settings are in its environment."""
    role = sys.argv[1]
    memory_arenas.share_if_limited()
    with collector.paused():
        if role == "broker":
            from resilient_scoop.processes.broker.main import main as run
        elif role == "agent":
            from resilient_scoop.processes.agent.main import main as run
        elif role == "remote-agent":
            from resilient_scoop.processes.agent.remote import main as run
        elif role == "host":
            from resilient_scoop.processes.agent.guardian import main as run
        elif role == "session":
            from resilient_scoop.processes.launcher.in_process import main as run
        elif role == "places":
            from resilient_scoop.processes.places.start import main as run
        elif role == "worker":
            from resilient_scoop.processes.worker.main import main as run
        elif role == "survey":
            from resilient_scoop.processes.code_comparison import main as run
        elif role == "replay":
            from resilient_scoop.processes.replay.main import main as run
        else:
            from resilient_scoop.processes.origin.main import main as run
    return run()


if __name__ == "__main__":
    sys.exit(main())
