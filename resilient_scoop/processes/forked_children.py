"""Forked children of the script and of tasks: they end as children of a Python program do.

A child has a copy of everything, including the connection to the broker and the state of the
protocol. None of that belongs to it, so it does not use it after the fork: futures raise one clear
error, its input and output go to the descriptors themselves, and when user code returns into ours,
the child ends.
"""

from __future__ import annotations

import contextlib
import functools
import os
import sys
from typing import TYPE_CHECKING, NoReturn

from resilient_scoop.processes import program_end, user_signals
from resilient_scoop.processes.here import Process

if TYPE_CHECKING:
    from resilient_scoop.processes.connection import Connection

_origin = os.getpid()
"""The process that `rscoop` started; `watch` sets it."""


def watch(session: Connection) -> None:
    """Handle all children that this process forks from now on."""
    global _origin  # noqa: PLW0603 - a process has one place in a run
    _origin = os.getpid()
    os.register_at_fork(before=_flush, after_in_child=functools.partial(_become_child, session))


def is_child() -> bool:
    """Return whether this process is a forked child."""
    return os.getpid() != _origin


def _flush() -> None:
    """Flush buffers that both parent and child would write."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, OSError, ValueError, RuntimeError):
            stream.flush()


def _become_child(session: Connection) -> None:
    Process.refusal = (
        f"futures were used in process {os.getpid()}, a forked child of {session.settings.name}: a "
        "child takes no part in the run; make calls in the script or in a task, or start the child "
        "without fork (multiprocessing's spawn)"
    )
    user_signals.become_child()
    session.become_child()


def end_if_child(error: BaseException | None = None) -> None:
    """End a child whose user code has returned into ours, or raised."""
    if is_child():
        if isinstance(error, SystemExit):
            end(program_end.exit_status(error))
        end(0 if error is None else program_end.report(error))


def end(code: int) -> NoReturn:
    """End a child as Python does."""
    program_end.finish_threads()
    program_end.run_exit_handlers()
    program_end.release_modules()
    program_end.leave(code)
