"""Threads, `concurrent.futures` and asyncio in a script: a resume finds the results of their calls."""

from __future__ import annotations

import contextlib
import os
import signal

import pytest

from tests.integration.runs import Place, finish, ledger, wait_until

pytestmark = pytest.mark.real

HEAD = """
import asyncio, os, queue, sys, threading, time
import concurrent.futures as cf
from resilient_scoop import futures
def work(n):
    with open("ledger", "a") as file: file.write(f"{n}\\n")
    time.sleep(0.05)
    return n * n
def fails(n): raise KeyError(n)
"""

WAITS = (
    HEAD
    + """
if __name__ == "__main__":
    future = futures.submit(work, 3)
    print(isinstance(future, cf.Future), isinstance(future, futures.Future))
    done, rest = cf.wait([future, futures.submit(time.sleep, 2)], return_when=cf.FIRST_COMPLETED)
    print(done == {future}, len(rest), future.result())
    made = [futures.submit(work, n) for n in range(6)]
    print(sorted(each.result() for each in cf.as_completed(made)))
    failed = futures.submit(fails, 4)
    seen = queue.Queue()
    threading.Thread(target=lambda: seen.put(failed.exception())).start()
    error = seen.get()
    print(repr(error), error is failed.exception())
    late = futures.submit(work, 7)
    late.add_done_callback(lambda each: seen.put((each.result(), each is late)))
    print(seen.get(timeout=20))
    mixed = [late, cf.ThreadPoolExecutor(1).submit(lambda: 5)]
    print(len(futures.wait(mixed).done), sorted(each.result() for each in futures.as_completed(mixed)))
"""
)


def test_other_libraries_and_threads_wait_for_futures_of_the_script(place: Place) -> None:
    assert place.run(WAITS).expect().splitlines() == [
        "True True",
        "True 1 9",
        "[0, 1, 4, 9, 16, 25]",
        "KeyError(4) True",
        "(49, True)",
        "2 [5, 49]",
    ]


POOLS = (
    HEAD
    + """
def chain(start):
    value = start
    for _ in range(10): value = futures.submit(work, value).result() % 1000
    return value
if __name__ == "__main__":
    with cf.ThreadPoolExecutor(4) as pool:
        print(list(pool.map(chain, range(2, 8))))
    results = []
    def next_one(future):
        results.append(future.result())
        if len(results) < 30: futures.submit(work, 100 + len(results)).add_done_callback(next_one)
        else: over.set()
    over = threading.Event()
    futures.submit(work, 100).add_done_callback(next_one)
    over.wait()
    print(len(results), sum(results))
"""
)


def chained(start: int) -> int:
    """Return the result of the script's `chain`."""
    value = start
    for _ in range(10):
        value = value * value % 1000
    return value


ANSWER = [
    str([chained(start) for start in range(2, 8)]),
    f"30 {sum(n * n for n in range(100, 130))}",
]


@pytest.mark.parametrize("after", [15, 40, 70])
def test_a_resume_finds_the_calls_of_threads_and_callbacks(place: Place, after: int) -> None:
    path = place.write(POOLS)
    run = place.start("run", "-q", "-n", "2", path.name)
    wait_until(lambda: len(ledger(place)) >= after, 30)
    for pid in place.processes():
        with contextlib.suppress(ProcessLookupError):  # its parent has ended it
            os.kill(pid, signal.SIGKILL)
    out = finish(run).out
    before = len(ledger(place))
    out += place.rscoop("resume", "-q", "last", timeout_s=60).expect()
    assert out.splitlines() == ANSWER
    place.assert_nothing_left()
    # Calls that were running, or whose outcome was not on disk yet, run again; others do not.
    assert len(ledger(place)) <= 90 + 8
    assert len(ledger(place)) >= before


@pytest.mark.parametrize("victim", ["origin", "broker", "worker", "agent"])
def test_threads_get_the_same_answer_when_a_process_is_killed(place: Place, victim: str) -> None:
    path = place.write(POOLS)
    run = place.start("run", "-q", "-n", "2", path.name)
    wait_until(lambda: len(ledger(place)) >= 30, 30)
    found = [pid for pid, line in place.processes().items() if f"entry {victim}" in line]
    os.kill(found[0], signal.SIGKILL)
    assert finish(run, timeout_s=60).expect().splitlines() == ANSWER
    place.assert_nothing_left()


ASYNC = (
    HEAD
    + """
async def one(n): return await asyncio.wrap_future(futures.submit(work, n))
async def all_of(count):
    ticks = 0
    async def tick():
        nonlocal ticks
        while True:
            await asyncio.sleep(0.01)
            ticks += 1
    ticking = asyncio.create_task(tick())
    values = await asyncio.gather(*[one(n) for n in range(count)])
    got = []
    for each in asyncio.as_completed([one(n) for n in range(count)]): got.append(await each)
    try: await asyncio.wrap_future(futures.submit(fails, 1))
    except KeyError as error: got.append(repr(error))
    ticking.cancel()
    return values, sorted(map(str, got)), ticks > 2
def in_task(count): return asyncio.run(all_of(count))[:2]
if __name__ == "__main__":
    print(*asyncio.run(all_of(4)))
    for values in futures.map(in_task, [3, 2]): print(*values)
"""
)


@pytest.mark.parametrize("workers", [1, 3])
def test_coroutines_wait_for_futures_in_the_script_and_in_tasks(place: Place, workers: int) -> None:
    assert place.run(ASYNC, workers=workers).expect().splitlines() == [
        "[0, 1, 4, 9] ['0', '1', '4', '9', 'KeyError(1)'] True",
        "[0, 1, 4] ['0', '1', '4', 'KeyError(1)']",
        "[0, 1] ['0', '1', 'KeyError(1)']",
    ]


def test_calls_of_threads_finish_at_the_end_of_a_script_that_does_not_wait(
    place: Place,
) -> None:
    done = place.run(
        HEAD
        + """
def make():
    for n in range(8): futures.submit(work, n).add_done_callback(lambda each: print("done", flush=True))
if __name__ == "__main__":
    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
"""
    )
    assert done.expect().splitlines() == ["done"] * 8
    assert sorted(ledger(place)) == [str(n) for n in range(8)]


def test_a_strict_run_refuses_calls_without_an_order(place: Place) -> None:
    path = place.write(
        HEAD
        + """
if __name__ == "__main__":
    print(cf.ThreadPoolExecutor(1).submit(lambda: futures.submit(work, 1)).exception())
    try: cf.wait([futures.submit(work, 1)])
    except Exception as error: print(error)
"""
    )
    done = place.rscoop("run", "-q", "-n", "1", "--strict", path.name)
    first, second = done.expect().splitlines()
    assert "in thread ThreadPoolExecutor-0_0" in first
    assert "without --strict" in first
    assert "without --strict" in second
    place.assert_nothing_left()
