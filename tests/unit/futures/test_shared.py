"""Calls of threads and executors: their futures."""

from __future__ import annotations

import concurrent.futures as cf
from typing import Any

from resilient_scoop.futures._shared import SharedFuture
from resilient_scoop.futures._views import View


def test_a_future_that_is_withdrawn_twice_is_canceled_once() -> None:
    """The thread that cancels and the one that delivers outcomes may both withdraw it."""
    future: SharedFuture[Any] = SharedFuture.__new__(SharedFuture)
    cf.Future.__init__(future)
    told: list[object] = []
    future.add_done_callback(told.append)

    assert future.withdraw()
    assert future.withdraw()

    assert future.cancelled()
    assert told == [future]


class Canceled:
    """A future whose outcome is that it was canceled."""

    def peek(self) -> tuple[Any, BaseException | None]:
        return None, cf.CancelledError()


def test_a_view_that_takes_in_a_cancellation_twice_is_canceled_once() -> None:
    canceled: Any = Canceled()
    view: View[Any] = View(canceled)

    assert view.take()

    assert view.cancelled()
    assert cf.wait([view], 1).done


def test_a_future_is_not_pending_any_more_when_it_is_withdrawn() -> None:
    future: SharedFuture[Any] = SharedFuture.__new__(SharedFuture)
    cf.Future.__init__(future)
    future.pending = {future: None}

    assert future.withdraw()

    assert not future.pending
