"""How the launcher hears signals: through its loop, and past it where that is held up.

What a signal means is `processes.launcher.stopping`'s. But a terminal that is paused, or a reader of a
pipe that does not read, holds the launcher up in the middle of a write for as long as it likes. Whoever
asks for an end then is not to wait for that: the second time, or after `STUCK_S`, everything ends at once.
What is journaled is what a resume begins with, and it shows what was not shown.
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
"""A loop that has not read a signal for so long is held up."""


class Ears:
    """Hears signals until it is closed; `hear` is given their numbers, `leave` an exit code."""

    def __init__(
        self,
        selector: selectors.BaseSelector,
        hear: Callable[[bytes], None],
        leave: Callable[[int], None],
    ) -> None:
        self._hear = hear
        self._leave = leave
        self._unheard_at: float | None = None  # since when a wish to end waits for the loop
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
        """The loop has come to it."""
        self._unheard_at = None
        signal.setitimer(signal.ITIMER_REAL, 0)
        numbers = os.read(self._wake, 64)
        self._hear(bytes(number for number in numbers if number != signal.SIGALRM))

    def _caught(self, number: int, _frame: object) -> None:
        """Do what cannot wait: Python calls this in the middle of a write, too."""
        if number not in CODES:
            return
        now = time.monotonic()
        if self._unheard_at is None:
            self._unheard_at, self._code = now, CODES[signal.Signals(number)]
            signal.setitimer(signal.ITIMER_REAL, STUCK_S, 1.0)
        elif now - self._unheard_at >= _ONCE_MORE_S:
            self._leave(self._code)

    def _look(self, _number: int, _frame: object) -> None:
        """The time is up, if the loop has not come to it meanwhile."""
        if self._unheard_at is not None and time.monotonic() - self._unheard_at >= STUCK_S:
            self._leave(self._code)

    def close(self) -> None:
        """Hear nothing more."""
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.set_wakeup_fd(-1)
        os.close(self._wake)
        os.close(self._theirs)
