"""Ignore the signals that ask a run to end in all processes but the launcher.

Batch systems and service managers send these signals to every process of a job, at the same moment.
A worker or broker that died of one could not write the checkpoint that the launcher is about to
request. So all other processes of a run ignore these signals, from before their first instruction:
the launcher ends them, and if it cannot, the kernel does.

Processes that user code starts must not inherit this. Therefore user code runs with a handler that
does nothing: the kernel resets it when another program is executed, and we reset it in a forked
child.
"""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

_last_at = float("-inf")
_masks: list[set[int]] = []  # one fork at a time: it holds the interpreter's lock
UNHEARD: Final = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP)


def ignore() -> None:
    """Ignore the signals; called between fork and exec."""
    for number in (*UNHEARD, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)


def ignored_here() -> list[int]:
    """Return which signals this process was started to ignore (`nohup`): they stay ignored."""
    return [signal.SIGHUP] if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN else []


def spare_children(ignored: Sequence[int]) -> None:
    """Ignore the signals, but not in child processes of user code; called in the main thread.

    Children ignore the signals that the launcher was started to ignore.
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
    """Record that a signal came that was sent to all processes."""
    global _last_at  # noqa: PLW0603 - a process has one set of handlers
    _last_at = time.monotonic()


def came_since(moment: float) -> bool:
    """Return whether a signal came that was sent to all processes, since a time (monotonic).

    Processes that user code had started may have died of it, so a failure then is not the call's fault.
    """
    return _last_at >= moment


# A signal that reaches a child between the fork and its first line would be lost, so it is blocked.


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
