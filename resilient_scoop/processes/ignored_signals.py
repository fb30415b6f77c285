"""Who hears the signals that ask a run to end: the launcher, and nobody else.

Batch systems and service managers send theirs to every process that they find, at the same moment. A
worker or broker that died of it could not save what the launcher is about to ask for. So all other
processes of a run are deaf to these signals, from before their first instruction on: the launcher
ends them, and the kernel does where it cannot.

Where user code runs, what it starts must not inherit that. A handler that does nothing is undone by
the kernel when another program is executed, and by us in a forked child.
"""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

_last_at = float("-inf")
_masks: list[set[int]] = []  # the fork is one at a time: it holds the interpreter's lock
UNHEARD: Final = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP)


def ignore() -> None:
    """Ignore the signals; to be called between fork and exec."""
    for number in (*UNHEARD, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)


def ignored_here() -> list[int]:
    """Return which signals this process was started to ignore (`nohup`): they stay ignored."""
    return [signal.SIGHUP] if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN else []


def spare_children(ignored: Sequence[int]) -> None:
    """Stay deaf, but let user code's child processes hear; for the main thread of a worker or origin.

    They ignore what the launcher was started to ignore.
    """
    for number in (*UNHEARD, signal.SIGINT):
        if number in ignored:
            continue
        signal.signal(number, _nothing)
        signal.siginterrupt(number, False)  # noqa: FBT003 - the system call takes it so
    os.register_at_fork(before=_hold_back, after_in_parent=_let_through, after_in_child=_hear_again)


def _nothing(_number: int, _frame: object) -> None:
    note()


def note() -> None:
    """Note that a signal came that was meant for all."""
    global _last_at  # noqa: PLW0603 - a process has one set of handlers
    _last_at = time.monotonic()


def came_since(moment: float) -> bool:
    """Tell whether a signal came that was meant for all, since a moment (monotonic).

    What user code had started then may have died of it, and what fails for that says nothing of itself.
    """
    return _last_at >= moment


# A signal that reaches a child between the fork and its first line would be lost: it is held back.


def _hold_back() -> None:
    _masks.append(signal.pthread_sigmask(signal.SIG_BLOCK, UNHEARD))


def _let_through() -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, _masks.pop())


def _hear_again() -> None:
    for number in UNHEARD:
        if signal.getsignal(number) is _nothing:
            signal.signal(number, signal.SIG_DFL)
    if signal.getsignal(signal.SIGINT) is _nothing:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    _let_through()
