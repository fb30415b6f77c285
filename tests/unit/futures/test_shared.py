"""Futures of calls of threads and executors."""

from __future__ import annotations

import concurrent.futures as cf
import itertools
import threading
from collections.abc import Callable
from typing import Any, cast

import pytest

from resilient_scoop.futures._shared import SharedFuture
from resilient_scoop.futures._views import View


def made() -> SharedFuture[Any]:
    return SharedFuture(cast("Any", None), "function")


def test_a_future_that_is_withdrawn_twice_is_canceled_once() -> None:
    """The thread that cancels and the one that delivers outcomes may both withdraw it."""
    future = made()
    told: list[object] = []
    future.add_done_callback(told.append)

    assert future.withdraw()
    assert future.withdraw()

    assert future.cancelled()
    assert told == [future]


class Canceled:
    """A future that was canceled."""

    def peek(self) -> tuple[Any, BaseException | None]:
        return None, cf.CancelledError()


def test_a_view_that_handles_a_cancellation_twice_is_canceled_once() -> None:
    canceled: Any = Canceled()
    view: View[Any] = View(canceled)

    assert view.take()

    assert view.cancelled()
    assert cf.wait([view], 1).done


def test_a_future_is_not_pending_any_more_when_it_is_withdrawn() -> None:
    future = made()
    future.pending = {future: None}

    assert future.withdraw()

    assert not future.pending


def test_a_future_without_waiters_gets_its_outcome_without_a_condition() -> None:
    error = ValueError("no")
    value, failed = made(), made()

    assert value.finish(7, None)
    assert failed.finish(None, error)

    assert (value.done(), value.result(0), value.exception(0)) == (True, 7, None)
    assert (failed.done(), failed.exception(0)) == (True, error)
    with pytest.raises(ValueError, match="no"):
        failed.result(0)
    assert cf.wait([value, failed], 0).done == {value, failed}
    told: list[object] = []
    value.add_done_callback(told.append)
    assert told == [value]
    assert not value.finish(8, None)


WAYS: list[Callable[[SharedFuture[Any]], Any]] = [
    lambda future: future.result(10),
    lambda future: future.exception(10) or future.result(0),
    lambda future: cf.wait([future], 10).done.pop().result(0),
    lambda future: next(cf.as_completed([future], 10)).result(0),
    lambda future: (future.cancelled(), future.running(), future.result(10))[2],
]


def test_waiters_that_arrive_with_the_outcome_do_not_miss_it() -> None:
    for number, way in zip(range(3000), itertools.cycle(WAYS), strict=False):
        future, start, told = made(), threading.Barrier(3), list[Any]()

        def settle(future: SharedFuture[Any] = future, start: threading.Barrier = start) -> None:
            start.wait()
            if not future.finish(number, None):  # noqa: B023 - it is joined below
                future.settle(number, None)  # noqa: B023

        def listen(
            future: SharedFuture[Any] = future,
            start: threading.Barrier = start,
            told: list[Any] = told,
        ) -> None:
            start.wait()
            future.add_done_callback(lambda done: told.append(done.result(0)))

        threads = [threading.Thread(target=each) for each in (settle, listen)]
        for thread in threads:
            thread.start()
        start.wait()
        assert way(future) == number
        for thread in threads:
            thread.join()
        assert told == [number]
