"""Ctrl-C in the script: its last things, of which nothing is history.

  runs      the broker says that the run was interrupted                  asked
  asked     SIGINT is on its way to the main thread                       cut, in front of the handler
  cut       `except`, `finally`, exit handlers; then the process ends

At the cut, what the script has done so far is sent, and the connection is closed. From then on nothing
is recorded: every future that has no outcome is canceled, also those that are submitted now; output goes
to a file that the launcher shows at its end; the standard input is at its end. So the next attempt
replays the script up to where it was, and goes on as if there had been no Ctrl-C.

The agent ends the process after a while. A script that ignores SIGINT is never cut; it just ends then.
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

    from resilient_scoop.processes.connection import Session
    from resilient_scoop.processes.origin.stdout import Output

FILE: Final = "last-words"
"""In the run's folder: what the script printed behind the cut."""


class Interrupt:
    """Ctrl-C of one script."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.output: Output | None = None  # set while the script runs
        self._is_told = False

    @property
    def is_heard(self) -> bool:
        """Whether the run was interrupted and the script is to be told."""
        return self.output is not None and self.session.machine.stopping == CTRL_C

    def tell(self) -> None:
        """Have the main thread handle it, once."""
        if not self._is_told:
            self._is_told = True
            user_signals.note_due(signal.SIGINT)

    def cut(self) -> bool:
        """Cut the script off, in front of the handler of a SIGINT; return whether that is the run's."""
        session, output = self.session, self.output
        if not self.is_heard or output is None or session.is_cut:
            return session.is_cut
        with contextlib.suppress(OSError, ValueError, RuntimeError, AttributeError):
            sys.stdout.flush()
        session.cut()
        output.turn_aside(os.path.join(session.settings.run_dir, FILE))  # noqa: PTH118
        parent = session.context.parent
        assert parent is not None, "the root is a parent"
        sever(parent)
        return True


def wait_cut(ready: Callable[[], bool], until: float | None) -> bool:
    """Wait without a broker.

    Raises:
        CancelledError: what is waited for never comes.
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
