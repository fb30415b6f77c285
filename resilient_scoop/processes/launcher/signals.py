"""How the launcher receives signals: in its loop, or directly if the loop is blocked.

`processes.launcher.stopping` decides what a signal means. But a paused terminal, or a pipe whose
reader does not read, can block the launcher in the middle of a write for any time. A request to end
must not wait for that: at the second signal, or after `STUCK_S`, everything ends at once. A resume
starts from the journal, and shows the output that was not shown.
"""

from __future__ import annotations

import os
import selectors
import signal
import time
from typing import TYPE_CHECKING, Final

from resilient_scoop.processes import ignored_signals
from resilient_scoop.processes.launcher.stopping import CODES, HEARD

if TYPE_CHECKING:
    from collections.abc import Callable

STUCK_S: Final = 10.0
_ONCE_MORE_S: Final = 1.0
"""A loop that has not read a signal for this time is blocked."""


class SignalReceiver:
    """Receives signals until closed; calls `hear` with their numbers, `leave` with an exit code."""

    def __init__(
        self,
        selector: selectors.BaseSelector,
        hear: Callable[[bytes], None],
        leave: Callable[[int], None],
    ) -> None:
        self._hear = hear
        self._leave = leave
        # time since which a request to end waits for the loop
        self._unheard_at: float | None = None
        self._code = 0
        self._wake, self._theirs = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(self._theirs, warn_on_full_buffer=False)
        ignored = ignored_signals.ignored_here()
        for number in HEARD:
            if number in ignored:
                continue  # started by `nohup`
            signal.signal(number, self._caught)
        signal.signal(signal.SIGALRM, self._look)
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)
        selector.register(self._wake, selectors.EVENT_READ, self._read)

    def _read(self) -> None:
        """Handle signals in the loop."""
        self._unheard_at = None
        signal.setitimer(signal.ITIMER_REAL, 0)
        numbers = os.read(self._wake, 64)
        self._hear(bytes(number for number in numbers if number != signal.SIGALRM))

    def _caught(self, number: int, _frame: object) -> None:
        """Act on signals that cannot wait: Python calls this in the middle of a write, too."""
        if number not in CODES:
            return
        now = time.monotonic()
        if self._unheard_at is None:
            self._unheard_at, self._code = now, CODES[signal.Signals(number)]
            signal.setitimer(signal.ITIMER_REAL, STUCK_S, 1.0)
        elif now - self._unheard_at >= _ONCE_MORE_S:
            self._leave(self._code)

    def _look(self, _number: int, _frame: object) -> None:
        """Act after `STUCK_S` if the loop has not read the signal."""
        if self._unheard_at is not None and time.monotonic() - self._unheard_at >= STUCK_S:
            self._leave(self._code)

    def close(self) -> None:
        """Stop receiving signals."""
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.set_wakeup_fd(-1)
        os.close(self._wake)
        os.close(self._theirs)
