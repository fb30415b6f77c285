"""Ctrl-C in the script: its handlers and cleanup run, and nothing of it is recorded.

  runs      the broker says that the run was interrupted                  asked
  asked     SIGINT is on its way to the main thread                       cut, before the handler runs
  cut       `except`, `finally`, exit handlers; then the process ends

At the cut, what the script has done so far is sent, and the connection is closed. After that,
nothing is recorded: every future without an outcome is canceled, also those that are submitted now;
output goes to a file that the launcher shows at its end; reading standard input returns end of
file. So the next attempt replays the script up to the cut, and continues as if there had been no
Ctrl-C.

The agent ends the process after its grace time. A script that ignores SIGINT is never cut; it is
only ended.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from typing import TYPE_CHECKING, Final

from resilient_scoop.core.endings import CTRL_C
from resilient_scoop.core.parent.severed import sever
from resilient_scoop.processes import user_signals

if TYPE_CHECKING:
    from collections.abc import Callable

    from resilient_scoop.processes.connection import Connection
    from resilient_scoop.processes.origin.stdout import ScriptOutput

FILE: Final = "last-words"
"""File in the run's folder: what the script printed after the cut."""


class ScriptInterrupt:
    """The state of Ctrl-C for the script."""

    def __init__(self, session: Connection) -> None:
        self.session = session
        self.output: ScriptOutput | None = None  # set while the script runs
        self._is_reported = False

    @property
    def is_heard(self) -> bool:
        """Whether the run was interrupted and the script must still be told."""
        return self.output is not None and self.session.machine.stopping == CTRL_C

    def tell(self) -> None:
        """Make the main thread handle it, once."""
        if not self._is_reported:
            self._is_reported = True
            user_signals.note_due(signal.SIGINT)

    def cut(self) -> bool:
        """Cut the script off before a handler of SIGINT runs; return whether it is the run's SIGINT."""
        session, output = self.session, self.output
        if not self.is_heard or output is None or session.is_cut:
            return session.is_cut
        with contextlib.suppress(OSError, ValueError, RuntimeError, AttributeError):
            sys.stdout.flush()
        session.cut()
        output.turn_aside(os.path.join(session.settings.run_dir, FILE))  # noqa: PTH118 - within a signal handler: no `pathlib`
        parent = session.context.parent
        assert parent is not None, "the root is a parent"
        sever(parent)
        return True


def wait_cut(ready: Callable[[], bool], until: float | None) -> bool:
    """Wait without a broker.

    Raises:
        CancelledError: the awaited result will never arrive.
    """
    if ready():
        return True
    if until is None:
        from concurrent.futures import CancelledError

        raise CancelledError(
            "the run was interrupted, so nothing is computed or recorded; `rscoop resume` continues it"
        )
    time.sleep(max(0.0, until - time.monotonic()))
    return ready()
