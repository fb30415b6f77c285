"""How a process waits for space: what it reports, which time counts, and for what it does not wait."""

from __future__ import annotations

import errno
import os
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from resilient_scoop.adapters.flight_record import FlightRecord
from resilient_scoop.adapters.greenlets import GreenletExit
from resilient_scoop.processes import disk_space, patient_output
from resilient_scoop.processes.connection import Context
from resilient_scoop.wire import messages as wire


@pytest.fixture
def session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A session without a broker, as far as waiting for space needs it; each wait is some milliseconds."""
    monkeypatch.setattr(disk_space, "LOOK_S", 0.01)
    machine = SimpleNamespace(link=SimpleNamespace(epoch=1), out=[], stopping=None)
    waiter = SimpleNamespace(
        wait=lambda _ready, until: time.sleep(max(0.0, until - time.monotonic()))
    )
    lock = threading.Lock()
    return SimpleNamespace(
        settings=SimpleNamespace(run_dir=str(tmp_path)), role="worker", machine=machine,
        record=FlightRecord.create("w1"), context=Context("0.0", None), turn=lambda: lock,
        send=machine.out.append, waiter=waiter, pump=time.sleep,
    )  # fmt: skip


def refusing(*numbers: int, session: Any, seen: list[int]) -> Any:
    """Return a write that is refused several times and notes the state of the flight record meanwhile."""
    left = list(numbers)

    def write() -> bytes:
        seen.append(session.record.needed_bytes)
        if left:
            number = left.pop(0)
            raise OSError(number, os.strerror(number))
        return b"name"

    return write


@pytest.mark.parametrize("result", [True, False])
def test_a_write_is_repeated_until_there_is_space_and_the_broker_is_told(
    session: Any, *, result: bool
) -> None:
    seen: list[int] = []
    write = refusing(errno.EDQUOT, errno.ENOSPC, errno.EFBIG, session=session, seen=seen)
    assert disk_space.Room(session).store(write, 3000, result) == b"name"
    assert seen == [0, 3000, 3000, 3000]
    assert session.record.needed_bytes == 0
    first, last = map(wire.decode_up, session.machine.out)
    what = "a result" if result else "an argument"
    assert first == wire.NoRoom(3000, what, "the disk quota is used up", result)
    assert last == wire.NoRoom(0)


def test_waiting_for_space_does_not_count_for_the_timeout_of_a_call(session: Any) -> None:
    session.context.until = until = time.monotonic() + 5.0
    disk_space.Room(session).store(refusing(errno.ENOSPC, session=session, seen=[]), 10, False)
    assert session.context.until >= until + disk_space.LOOK_S


def test_waiting_for_space_is_not_counted_as_computing(session: Any) -> None:
    began = time.monotonic()
    session.context.work = SimpleNamespace(since=began, dropped=False)
    disk_space.Room(session).store(refusing(errno.ENOSPC, session=session, seen=[]), 1, sync=True)
    now = time.monotonic()
    assert now - session.context.work.since < (now - began) / 2


def test_another_error_is_raised_at_once(session: Any) -> None:
    with pytest.raises(OSError, match="Input/output error"):
        disk_space.Room(session).store(refusing(errno.EIO, session=session, seen=[]), 10, True)
    assert session.machine.out == []


def test_a_result_does_not_wait_for_space_in_a_run_that_stops(session: Any) -> None:
    session.machine.stopping = "asked"
    with pytest.raises(GreenletExit):
        disk_space.Room(session).store(refusing(errno.ENOSPC, session=session, seen=[]), 10, True)
    assert session.record.needed_bytes == 0


@pytest.mark.parametrize("midst", [False, True], ids=["user code", "a turn of the machine"])
def test_output_waits_for_space_and_the_broker_is_told_if_the_machine_is_free(
    session: Any, monkeypatch: pytest.MonkeyPatch, *, midst: bool
) -> None:
    monkeypatch.setattr(patient_output, "_LOOK_S", 0.05)
    session.context.until = time.monotonic() + 3
    until = session.context.until
    kept: list[bytes] = []
    full = [1, 1]

    def write(_: int, data: memoryview) -> int:
        if full:
            raise OSError(full.pop() and errno.ENOSPC, "no space")
        kept.append(bytes(data[:4]))
        return len(kept[-1])

    monkeypatch.setattr(os, "write", write)
    if midst:
        session.turn().acquire()
    patient_output.write_patiently(1, b"some text", session)
    assert b"".join(kept) == b"some text"
    told = [] if midst else [wire.NoRoom(9, "a task's output"), wire.NoRoom(0)]
    assert [wire.decode_up(frame) for frame in session.machine.out] == told
    assert session.record.needed_bytes == 0
    assert session.context.until >= until + 0.1


def test_output_does_not_wait_for_space_after_the_end_of_its_run(
    session: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def sleep(_: float) -> None:
        session.machine.stopping = "asked"

    monkeypatch.setattr(time, "sleep", sleep)
    full = os.open("/dev/full", os.O_WRONLY)
    patient_output.write_patiently(full, b"said", session)
    os.close(full)
    assert session.machine.stopping
