"""`timeout=` of calls that make calls, wait, compute, and are retried."""

from __future__ import annotations

import pytest

from tests.integration.runs import Place

pytestmark = pytest.mark.real

SCRIPT = """
import os, time
from resilient_scoop import futures

def once_only(name):  # the first time it is true
    try: os.close(os.open(name, os.O_CREAT | os.O_EXCL)); return True
    except FileExistsError: return False

def deep(level):  # waits for one that waits
    return futures.submit(deep, level - 1).result() if level else time.sleep(9)

def stubborn(x):  # catches everything while it waits
    while True:
        try: futures.submit(time.sleep, 9).result()
        except Exception: pass

def computes(x):  # after its calls
    sum(futures.map(abs, range(3)))
    while True: x += 1

def second(x):  # its first try is late after its calls, its second one is quick
    total = sum(futures.map(abs, range(x)))
    if once_only("first-late"): time.sleep(9)
    return total

def third(x):  # fails, is late, is well
    if once_only("fails"): raise ValueError
    if once_only("late"): time.sleep(9)
    return x

def patient(x):  # longer than its limit, but not in one try
    if once_only("a"): time.sleep(0.7); raise ValueError("a")
    if once_only("b"): time.sleep(0.7); raise ValueError("b")
    time.sleep(0.3); return "patient"

if __name__ == "__main__":
    began = time.monotonic()
    limit = futures.options(timeout=1.5)
    fs = [limit.submit(f, 1) for f in (deep, stubborn, computes)]
    fs += [futures.options(timeout=1.5, retries=n).submit(f, 4) for f, n in ((second, 1), (third, 2))]
    fs += [futures.options(timeout=1.2, retries=2).submit(patient, 0)]
    for f in fs:
        try: print(f.result())
        except TimeoutError as error: print(type(error).__name__)
    assert time.monotonic() - began < 8, time.monotonic() - began
"""
ANSWERS = "TaskTimeoutError\n" * 3 + "6\n4\npatient\n"


def test_every_try_of_a_call_has_its_timeout_whatever_it_waits_for(place: Place) -> None:
    assert place.run(SCRIPT, workers=6, timeout_s=40.0).expect() == ANSWERS


def test_a_waiting_call_times_out_although_its_worker_runs_another_one(place: Place) -> None:
    done = place.run(
        """
        import time
        from resilient_scoop import futures
        def outer(x): return futures.submit(spin, 5).result()
        def spin(s):
            until = time.monotonic() + s
            while time.monotonic() < until: pass
        if __name__ == "__main__":
            began = time.monotonic()
            late = futures.options(timeout=1, idempotent=False).submit(outer, 0)
            print(type(late.exception()).__name__, round(time.monotonic() - began, 1) < 2.5)
        """,
        workers=1,
    )
    assert done.expect() == "TaskTimeoutError True\n"
