"""Long calls: the state that they save with `progress(resume=…)` survives every kind of death."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys

import pytest

from tests.integration.runs import Place, finish, wait_until

pytestmark = pytest.mark.real

LONG = """
import random, time
from resilient_scoop import futures
STEPS = 30
def long(x):
    info = futures.task_info()
    at, total = info.resume or (0, 0.0)
    with open("ledger", "a") as file:
        file.write(f"{info.id} {info.attempt} {at} {info.idempotency_key} {info.run}\\n")
    while at < STEPS:
        total += random.random()
        time.sleep(0.1)
        at += 1
        futures.progress(at, STEPS, resume=(at, total))
        with open(f"at{x}", "w") as file: file.write(str(at))
    return total
if __name__ == "__main__":
    print(list(futures.map(long, [1, 2])))
"""


def starts(place: Place) -> list[list[str]]:
    path = place.folder / "ledger"
    return [line.split() for line in path.read_text().splitlines()] if path.exists() else []


def step_of(place: Place, x: int) -> int:
    path = place.folder / f"at{x}"
    text = path.read_text() if path.exists() else ""
    return int(text or 0)


def undisturbed(place: Place, text: str) -> str:
    """Return what the script prints without a kill, and remove that run."""
    place.write(text)
    answer = place.rscoop("run", "-q", "-n", "2", "--seed", "5", "script.py").expect()
    for path in place.folder.glob("at*"):
        path.unlink()
    (place.folder / "ledger").unlink()
    return answer


def started(place: Place) -> subprocess.Popen[str]:
    place.write(LONG)
    process = place.start("run", "-q", "-n", "2", "--seed", "5", "script.py")
    wait_until(lambda: min(step_of(place, 1), step_of(place, 2)) >= 15, 20.0)
    return process


def test_a_worker_killed_in_a_long_call_costs_one_second_of_it(place: Place) -> None:
    answer = undisturbed(place, LONG)
    process = started(place)
    victim, *_ = [
        pid
        for pid, words in place.processes().items()
        if " resilient_scoop.processes.entry worker " in words
    ]
    os.kill(victim, signal.SIGKILL)

    assert finish(process).expect() == answer
    again = [line for line in starts(place) if line[1] == "2"]
    assert len(again) == 1
    assert int(again[0][2]) >= 4  # at step 15 of 0.1 s, with one report per second


def test_a_run_continues_inside_its_long_calls_after_everything_was_killed(place: Place) -> None:
    answer = undisturbed(place, LONG)
    process = started(place)

    for pid in place.processes():
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    finish(process)

    status = place.rscoop("status", "last").expect()
    assert "continues from there" in status
    assert place.rscoop("resume", "last", timeout_s=30).expect().endswith(answer)
    place.assert_nothing_left()

    first, again = starts(place)[:2], starts(place)[2:]
    assert [int(line[2]) >= 4 for line in again] == [True, True], again
    assert [line[1] for line in again] == ["2", "2"]
    # The key and the run's id are the same, and belong to no other item
    assert {(line[0], line[3], line[4]) for line in again} == {
        (line[0], line[3], line[4]) for line in first
    }
    assert len({line[3] for line in first}) == 2


def test_a_stop_keeps_the_last_progress_report(place: Place) -> None:
    answer = undisturbed(place, LONG)
    process = started(place)
    process.send_signal(signal.SIGINT)
    finish(process)
    reached = {f"0.0[{x - 1}]": step_of(place, x) for x in (1, 2)}

    assert place.rscoop("resume", "last", timeout_s=30).expect().endswith(answer)
    for path, _, at, *_ in starts(place)[2:]:
        assert int(at) >= min(reached[path], 30) - 3, starts(place)


TIMEOUT = """
import time
from resilient_scoop import futures
@futures.task(timeout=1.5, retries=2)
def long(x):
    info = futures.task_info()
    at = info.resume or 0
    assert info.deadline is not None and 1.0 < info.remaining_s <= 1.5, info.remaining_s
    print("from", at > 0, info.attempt, flush=True)
    while at < 25:
        time.sleep(0.1)
        at += 1
        futures.progress(at, 25, resume=at)
    return at
if __name__ == "__main__":
    print(futures.submit(long, 1).result())
"""


def test_a_call_that_its_timeout_ends_continues_in_its_next_attempt(place: Place) -> None:
    assert place.run(TIMEOUT, workers=1).expect().splitlines()[-1] == "25"


RETRY = """
from resilient_scoop import futures
@futures.task(retries=3)
def shaky(x):
    info = futures.task_info()
    at = info.resume or 0
    futures.progress(at + 1, 3, resume=at + 1)
    if at < 2:
        raise OSError(f"at {at}")
    return at, info.attempt
if __name__ == "__main__":
    print(futures.submit(shaky, 1).result())
"""


def test_a_retry_in_the_same_worker_also_continues(place: Place) -> None:
    assert place.run(RETRY, workers=1).expect() == "(2, 3)\n"


REFUSED = """
import threading
from resilient_scoop import futures
def leaf(x): return x
def large(x): futures.progress(1, 2, resume=bytes(2 << 20))
def lock(x): futures.progress(1, 2, resume={"cache": threading.Lock()})
def parent(x):
    futures.progress(1, 2)
    list(futures.map(leaf, [1]))
    futures.progress(2, 2)
    futures.progress(2, 2, resume=1)
def draws(x):
    stream = futures.rng()
    futures.progress(1, 2, resume=stream)
    return 0 <= stream.random() < 1
def bad(x): futures.progress(-1)
def thread(x):
    found = []
    def look():
        try: futures.progress(1)
        except RuntimeError as error: found.append(str(error))
    worker = threading.Thread(target=look); worker.start(); worker.join()
    return found[0]
def tell(fn):
    try: print(fn.__name__, futures.submit(fn, 1).result())
    except Exception as error: print(fn.__name__, type(error).__name__, error)
if __name__ == "__main__":
    print(futures.task_info())
    for fn in (large, lock, parent, draws, bad, thread): tell(fn)
    futures.progress(1, 3)
    try: futures.progress(2, 3, resume=1)
    except Exception as error: print("script", error)
"""


def test_a_progress_payload_that_cannot_be_saved_is_refused_with_a_message(place: Place) -> None:
    lines = place.run(REFUSED).expect().splitlines()

    assert lines[0] == "None"
    answers = {line.split()[0]: line for line in lines[1:]}
    assert "ProgressRefusedError" in answers["large"]
    assert "2,097,1" in answers["large"]
    assert "more than the 1,048,576" in answers["large"]
    assert "resume['cache']" in answers["lock"]
    assert "resilient_scoop.checkpoint" in answers["parent"]
    assert answers["draws"] == "draws True"
    assert "ValueError" in answers["bad"]
    assert "thread of your own" in answers["thread"]
    assert "it is the script itself" in answers["script"]


SERIAL = """
import warnings
warnings.simplefilter("ignore")
from resilient_scoop import futures
def leaf(x):
    info = futures.task_info()
    futures.progress(1, 2, resume=x)
    return info.id, info.attempt, info.resume, info.run, info.deadline, len(info.idempotency_key)
if __name__ == "__main__":
    print(futures.task_info(), futures.progress(1, 2))
    print(*futures.map(leaf, [1, 2]), futures.submit(leaf, 3).result(), sep="\\n")
"""


def test_task_info_works_without_rscoop(place: Place) -> None:
    path = place.write(SERIAL)
    done = subprocess.run(
        [sys.executable, path],
        env=place.env(),
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert done.stdout.splitlines() == [
        "None None",
        "('0.0[0]', 1, None, None, None, 32)",
        "('0.0[1]', 1, None, None, None, 32)",
        "('0.1[0]', 1, None, None, None, 32)",
    ]


OFTEN = """
import time
from resilient_scoop import futures
def busy(x):
    began = time.monotonic()
    calls = 0
    while time.monotonic() - began < 2.0:
        calls += 1
        futures.progress(calls, resume=calls)
    return calls
if __name__ == "__main__":
    print(futures.submit(busy, 1).result())
"""


def test_a_call_that_reports_progress_constantly_writes_one_record_a_second(place: Place) -> None:
    calls = int(place.run(OFTEN, workers=1).expect())
    assert calls > 2000
    (run,) = place.runs()
    stats = place.rscoop("journal", "stats", "last", "--json").expect()
    assert re.search(r'"table":\s*"progress",\s*"records":\s*0', stats), stats
    assert sum(path.stat().st_size for path in run.rglob("*") if path.is_file()) < 2_000_000
