"""A thread that receives for all threads of the script's process, so that any of them may wait.

Without it, the main thread receives while it waits. That is the fastest way for one thread, but
while it waits in other code (a lock, `time.sleep`, an event loop), nothing would arrive. From the
first call of another thread on, this thread receives, and all other threads wait for it:

  other threads   on a condition, `wait_for`
  the main thread on a descriptor, `wait`, so that a signal handler that raises leaves no lock behind

  PU1  What arrives is taken in within the time of a turn, whatever the main thread does.
  PU2  A thread that has sent something wakes this thread: libzmq's descriptor says only once that there
       is something to read, and the sender may have used that up.
  PU3  What is queued in a turn is sent within `LINGER_S`: by the thread that queued it, or by this one.
       After something was sent, this thread looks again after `LINGER_S` without being woken: more
       often follows, and one message with many calls costs much less than many messages.
"""

from __future__ import annotations

import os
import select
import signal
import threading
import time
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

_LOOK_S: Final = 0.1
LINGER_S: Final = 0.001
_STOP_S: Final = 5.0


class Receiver(Protocol):
    """The part of a connection that the thread needs."""

    heard_at: float
    flushed_at: float

    @property
    def fd(self) -> int:
        """The descriptor that is readable when a message has arrived."""

    @property
    def is_closed(self) -> bool:
        """Whether nothing is sent or received any more."""

    def turn(self) -> threading.Lock:
        """Return the lock of a turn."""

    def pump(self) -> None:
        """Receive messages, in a turn."""


class Pump:
    """The thread that receives for all others."""

    def __init__(self, session: Receiver) -> None:
        self._session = session
        self._news = threading.Condition(session.turn())
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._main_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._main_poll = select.poll()
        self._main_poll.register(self._main_fd, select.POLLIN)
        self._open_fds = threading.Lock()  # they are not closed while one of them is written to
        self._is_released = False
        self._ends = False
        self._is_woken = False
        self.each_turn: list[Callable[[], None]] = []
        """Called in each turn, after receiving."""
        self._thread = threading.Thread(target=self._run, name="rscoop-pump", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def wake(self) -> None:
        """Make the thread take a turn now, or within `LINGER_S` (PU2, PU3); callable from any thread."""
        if not self._is_woken:
            self._is_woken = True
            self._raise(self._wake_fd)

    def announce(self) -> None:
        """Make all waiting threads check again; called in a turn."""
        self._news.notify_all()
        self._raise(self._main_fd)

    def _raise(self, fd: int) -> None:
        """Make a descriptor readable, unless its number has been reused."""
        with self._open_fds:
            if not self._is_released:
                os.eventfd_write(fd, 1)

    def wait(self, timeout_s: float) -> None:
        """Wait until something has arrived, outside of a turn; for the main thread."""
        if self._main_poll.poll(max(0.0, timeout_s) * 1000):
            self._drain(self._main_fd)

    def wait_for(self, ready: Callable[[], bool], until: float | None = None) -> bool:
        """Wait until `ready()` holds (True) or the moment `until` (False); for other threads."""
        with self._news:
            while not ready():
                left_s = None if until is None else until - time.monotonic()
                if left_s is not None and left_s <= 0:
                    return False
                self._news.wait(_LOOK_S if left_s is None else min(left_s, _LOOK_S))
        return True

    def close(self) -> None:
        """End the thread; its session is closed after that."""
        self._ends = True
        self.wake()
        if threading.current_thread() is not self._thread:
            self._thread.join(_STOP_S)

    def release(self) -> None:
        """Close the descriptors, once no thread waits any more; others may still announce something."""
        with self._open_fds:
            self._is_released = True
            for fd in (self._wake_fd, self._main_fd):
                os.close(fd)

    def _is_over(self) -> bool:
        return self._ends or self._session.is_closed

    @staticmethod
    def _drain(fd: int) -> None:
        try:
            os.eventfd_read(fd)
        except BlockingIOError:
            return  # another thread was faster

    def _run(self) -> None:
        """Take a turn at each message and each call of `wake` (PU1)."""
        signal.pthread_sigmask(
            signal.SIG_BLOCK, signal.valid_signals()
        )  # they are the main thread's
        session = self._session
        messages, poll = select.poll(), select.poll()
        messages.register(session.fd, select.POLLIN)
        poll.register(session.fd, select.POLLIN)
        poll.register(self._wake_fd, select.POLLIN)
        flushed_at, lingers = session.flushed_at, False
        while not self._is_over():
            if lingers:
                messages.poll(LINGER_S * 1000)
            else:
                poll.poll(_LOOK_S * 1000)
            self._drain(self._wake_fd)
            self._is_woken = False  # a send after this wakes it again
            with session.turn():
                if self._is_over():
                    return
                before = session.heard_at
                session.pump()
                for call in self.each_turn:
                    call()
                if session.heard_at != before:
                    self.announce()
                lingers = self._is_woken = session.flushed_at != flushed_at  # PU3
                flushed_at = session.flushed_at
