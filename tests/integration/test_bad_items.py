"""Values and items that break their process: each is named and fails alone, and the run continues."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.runs import RSCOOP, Place, finish, ledger

pytestmark = pytest.mark.real


def test_an_unpicklable_part_is_named_by_its_path(place: Place) -> None:
    done = place.run("""
        import threading
        from resilient_scoop import futures
        class Box:
            def __init__(self): self.parts = [1, {"lock": threading.Lock()}]
        def give(_): return Box()
        def take(box): return 1
        if __name__ == "__main__":
            for call in (lambda: futures.submit(take, Box()), lambda: futures.map(take, [1, Box()]),
                         lambda: futures.submit(give, 1).result(),
                         lambda: futures.submit(Box().parts.__contains__, 1)):
                try: call()
                except Exception as error: print(type(error).__name__, error)
            print(list(futures.map(take, [1])))
            for wrong in (None, 7, "name"):
                for call in (futures.submit, futures.map):
                    try: call(wrong, [1])
                    except TypeError as error: print("TypeError", error)
            print(list(futures.map(take, [])), list(futures.map_as_completed(take, [])))
            try: futures.map(take)
            except TypeError as error: print("TypeError", error)
    """)
    lines = done.expect().splitlines()
    assert all(line.startswith("PicklingFailedError") for line in lines[:4]), lines[:4]
    assert "arg.parts[1]['lock'] is a lock" in lines[0].replace("_thread.", "")
    assert "value.parts[1]['lock']" in lines[2]
    assert lines[4] == "[1]"
    assert all("is not callable" in line for line in lines[5:11])
    assert lines[11] == "[] []"
    assert lines[12].startswith("TypeError map() must have at least one iterable")


def test_big_results_many_arguments_and_endless_iterables_work(place: Place) -> None:
    done = place.run("""
        import itertools, resource
        from resilient_scoop import futures
        def big(n): return bytes(n)
        def inc(x): return x + 1
        if __name__ == "__main__":
            print(len(futures.submit(big, 200_000_000).result()))
            print(sum(futures.map(inc, range(200_000))))
            print(list(itertools.islice(futures.map(inc, itertools.count()), 5)))
            print(next(futures.map_as_completed(inc, itertools.count())) > 0)
            print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < 1_500_000)
    """)
    assert done.expect().splitlines() == [
        "200000000", str(sum(range(1, 200_001))), "[1, 2, 3, 4, 5]", "True", "True"
    ]  # fmt: skip


def test_an_item_with_too_deep_a_recursion_fails_alone(place: Place) -> None:
    done = place.run("""
        from resilient_scoop import futures
        def recurse(n): return 0 if n == 0 else 1 + recurse(n - 1)
        def take(x): return 1
        if __name__ == "__main__":
            print(futures.submit(recurse, 500).result())
            try: futures.submit(recurse, 5_000).result()
            except RecursionError as error: print("RecursionError", error)
            deep = []
            for _ in range(5_000): deep = [deep]
            try: print(futures.submit(take, deep).result())
            except Exception as error: print(type(error).__name__, error)
            print(futures.submit(recurse, 100).result())
    """)
    lines = done.expect().splitlines()
    assert lines[0] == "500"
    assert lines[1].startswith("RecursionError maximum recursion depth exceeded")
    assert lines[2] == "1" or "nested too deeply" in lines[2]
    assert lines[3] == "100"


def test_an_item_that_kills_its_worker_fails_alone(place: Place) -> None:
    done = place.run("""
        import ctypes, os, sys
        from resilient_scoop import futures
        def work(x):
            with open(f"tries{x}", "a") as file: file.write("x")
            if x == 5: ctypes.string_at(0)
            if x == 6: os._exit(0)
            if x == 7: os._exit(41)
            if x == 8: sys.exit(3)
            return x
        if __name__ == "__main__":
            fs = [futures.submit(work, x) for x in range(12)]
            for f in fs:
                try: print(f.result())
                except BaseException as error: print(type(error).__name__, error)
            print([os.path.getsize(f"tries{x}") for x in (5, 6, 7)])
    """)
    lines = done.expect().splitlines()
    assert [lines[x] for x in (0, 1, 2, 3, 4, 9, 10, 11)] == [
        "0",
        "1",
        "2",
        "3",
        "4",
        "9",
        "10",
        "11",
    ]
    for x, exits in ((5, "SIGSEGV, SIGSEGV, SIGSEGV"), (6, "exit status 0"), (7, "exit status 41")):
        assert lines[x].startswith(f"WorkerCrashedError item 0.{x}[0] (__main__:work)"), lines[x]
        assert "killed its worker 3 times" in lines[x]
        assert exits in lines[x]
    assert lines[8] == "SystemExit 3"
    assert lines[12] == "[3, 3, 3]"


def test_a_timeout_ends_calls_that_sleep_or_hold_the_gil(place: Place) -> None:
    done = place.run("""
        import re, time
        from resilient_scoop import futures
        def sleep(_): time.sleep(60)
        def hold(_): return re.match(r"(a+)+$", "a" * 40 + "b")
        def quick(x): return x
        if __name__ == "__main__":
            calls = futures.options(timeout=0.5)
            for fn in (sleep, hold):
                began = time.monotonic()
                try: calls.submit(fn, 0).result()
                except TimeoutError as error:
                    print(type(error).__name__, time.monotonic() - began < 3, error)
            print(list(calls.map(quick, range(5))))
    """)
    lines = done.expect().splitlines()
    for line in lines[:2]:
        assert line.startswith("TaskTimeoutError True item 0."), line
        assert "ran longer than its timeout of 0.5 s" in line
    assert lines[2] == "[0, 1, 2, 3, 4]"


def test_a_call_that_is_not_idempotent_starts_once(place: Place) -> None:
    done = place.run("""
        import os
        from resilient_scoop import futures
        def pay(x):
            with open("ledger", "a") as file: file.write(f"{x}\\n")
            if x == 2: os.kill(os.getpid(), 9)
            return x
        if __name__ == "__main__":
            fs = [futures.options(idempotent=False).submit(pay, x) for x in range(4)]
            for f in fs:
                try: print(f.result())
                except Exception as error: print(type(error).__name__, error)
    """)
    lines = done.expect().splitlines()
    assert lines[2].startswith("WorkerLostError item 0.2[0] (__main__:pay) was started")
    assert sorted(ledger(place)) == sorted(set(ledger(place)))
    assert "2" in ledger(place)


CGROUP = Path("/sys/fs/cgroup/memory")


@pytest.fixture
def small_memory() -> Iterator[Path]:
    """A cgroup (version 1) whose processes may take 300 MB together."""
    group = CGROUP / f"rscoop-test-{os.getpid()}"
    try:
        group.mkdir()
        (group / "memory.limit_in_bytes").write_text("300000000")
    except OSError as error:
        pytest.skip(f"no memory cgroup to be had here: {error}")
    yield group
    group.rmdir()


def test_an_item_that_needs_too_much_memory_fails_alone(place: Place, small_memory: Path) -> None:
    place.write("""
        from resilient_scoop import futures
        def eat(n): return len(bytearray(b"x") * n)
        def ok(x): return x
        if __name__ == "__main__":
            hungry = futures.submit(eat, 800_000_000)
            print(sum(futures.map(ok, range(1000))))
            try: hungry.result()
            except Exception as error: print(type(error).__name__, error)
    """)
    enter = f"echo $$ > {small_memory}/cgroup.procs"
    process = subprocess.Popen(
        ["bash", "-c", f'{enter}; exec "$@"', "-", *RSCOOP, "run", "-q", "-n", "2", "script.py"],
        cwd=place.folder, env=place.env(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    done = finish(process)
    place.assert_nothing_left()
    lines = done.expect().splitlines()
    assert lines[0] == "499500"
    assert lines[1].startswith("WorkerCrashedError item 0.0[0] (__main__:eat) killed its worker 3")
    assert "SIGKILL (oom)" in lines[1]
    assert "needs more memory" in lines[1]


def test_large_plain_values_do_not_pass_through_the_broker(place: Place) -> None:
    done = place.run("""
        from resilient_scoop import futures
        import os, resource
        def echo(x): return x
        def peaks():
            run = os.environ["RSCOOP_RUN_ID"].encode() + b"-"
            for pid in filter(str.isdigit, os.listdir("/proc")):
                try: words = open(f"/proc/{pid}/cmdline", "rb").read().split(b"\\0")
                except OSError: continue
                if b"broker" in words and any(word.startswith(run) for word in words):
                    yield int(open(f"/proc/{pid}/status").read().split("VmHWM:")[1].split()[0])
        if __name__ == "__main__":
            for value in (b"\\x01" * 100_000_000, "ä" * 50_000_000, 1 << 200_000_000):
                assert futures.submit(echo, value).result() == value
            (peak_kb,) = peaks()
            print(peak_kb < 80_000, peak_kb)
    """)
    assert done.expect().startswith("True"), done
