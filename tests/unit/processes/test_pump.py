"""The turns of the thread that receives for all others."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator

import pytest

from resilient_scoop.processes import pump
from resilient_scoop.processes.pump import Pump

_LONG_S = 20.0


class FakeConnection:
    """A connection on which nothing arrives; it notes what each turn sends."""

    def __init__(self) -> None:
        self.fd, self._other = os.pipe()
        self.heard_at = self.flushed_at = 0.0
        self.is_closed = False
        self.queued: list[int] = []
        self.sent: list[list[int]] = []
        self._lock = threading.Lock()

    def turn(self) -> threading.Lock:
        return self._lock

    def pump(self) -> None:
        assert self._lock.locked()
        if self.queued:
            self.sent.append(self.queued)
            self.queued = []
            self.flushed_at += 1.0

    def close(self) -> None:
        os.close(self.fd)
        os.close(self._other)


@pytest.fixture
def connection() -> Iterator[FakeConnection]:
    made = FakeConnection()
    yield made
    made.close()


@pytest.fixture
def pumping(connection: FakeConnection) -> Iterator[Pump]:
    made = Pump(connection)
    made.start()
    yield made
    made.close()
    made.release()


def _queue(connection: FakeConnection, pumping: Pump, number: int) -> None:
    with connection.turn():
        connection.queued.append(number)
    pumping.wake()


def _await_sent(connection: FakeConnection, count: int) -> None:
    until = time.monotonic() + _LONG_S
    while sum(map(len, connection.sent)) < count:
        assert time.monotonic() < until, connection.sent
        time.sleep(0.001)


def test_frames_queued_while_the_pump_lingers_are_sent_in_one_turn(
    connection: FakeConnection, pumping: Pump, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pump, "LINGER_S", 1.0)
    _queue(connection, pumping, 0)
    _await_sent(connection, 1)

    for number in range(1, 51):
        _queue(connection, pumping, number)

    _await_sent(connection, 51)
    assert connection.sent == [[0], list(range(1, 51))]


def test_a_pump_that_has_lingered_is_woken_again(
    connection: FakeConnection, pumping: Pump, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pump, "_LOOK_S", _LONG_S)  # nothing is sent without a wake-up
    for number in range(200):
        _queue(connection, pumping, number)
        _await_sent(connection, number + 1)
        if number % 20 == 0:
            time.sleep(0.01)  # longer than the pump lingers

    assert [number for turn in connection.sent for number in turn] == list(range(200))


def test_a_closed_pump_does_not_write_to_descriptors_of_others(
    connection: FakeConnection,
) -> None:
    """A thread that has just made a call may wake the pump of a session that is being closed."""
    pumping = Pump(connection)
    pumping.start()
    pumping.close()
    pumping._is_woken = False
    pumping.release()
    others = [os.eventfd(0, os.EFD_NONBLOCK) for _ in range(2)]
    assert set(others) == {pumping._wake_fd, pumping._main_fd}
    with connection.turn():
        pumping.announce()
    pumping.wake()
    for fd in others:
        with pytest.raises(BlockingIOError):
            os.eventfd_read(fd)
        os.close(fd)
