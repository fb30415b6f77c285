"""The flight record shows other processes what a process executes, also after its death."""

from __future__ import annotations

import os
import time

from resilient_scoop.adapters.flight_record import FlightRecord


def test_the_record_of_another_process_is_found_and_read() -> None:
    record = FlightRecord.create("w1")
    record.begin(2, 5, "0.3[1]", 4, 17)
    found = FlightRecord.of_process(os.getpid())
    assert found is not None
    on_cpu = found.read()
    assert on_cpu is not None
    assert (on_cpu.epoch, on_cpu.no, on_cpu.parent, on_cpu.call, on_cpu.item) == (
        2,
        5,
        "0.3[1]",
        4,
        17,
    )
    assert 0 <= time.monotonic_ns() - on_cpu.since_ns < 10_000_000_000
    record.idle()
    assert found.read() is None
    found.close()
    record.close()


def test_no_record_is_found_of_an_ended_process_or_of_one_without_a_record() -> None:
    assert FlightRecord.of_process(2**22 + 1) is None
