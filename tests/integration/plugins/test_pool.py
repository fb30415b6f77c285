"""`Pool` in use: CPython's own tests of pools, programs without a run, tasks, threads, deaths."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.integration.plugins.cases import Case, Script
from tests.integration.runs import Place, ledger

pytestmark = pytest.mark.real

CPYTHON = """
import multiprocessing
import unittest

import resilient_scoop
import test._test_multiprocessing as theirs

current = []


class OurPool(theirs._TestPool, unittest.TestCase):
    TYPE = "processes"
    Pool = staticmethod(resilient_scoop.Pool)
    TimeoutError = multiprocessing.TimeoutError
    Process = multiprocessing.Process
    Value = staticmethod(multiprocessing.Value)
    # It looks at private attributes.
    test_make_pool = None
    # The processes of a pool that is not used any more end without a warning.
    test_resource_warning = None
    # An argument that cannot be pickled is a PicklingFailedError, which says where.
    test_map_unplicklable = None
    # Results before the error of the iterable are given, also those of the same chunk.
    test_imap_handle_iterable_exception = None
    # The frames of the worker are in the traceback itself, not in a text.
    test_traceback = None
    # It calls a method of its class, which unittest has changed in this process alone.
    test_wrapped_exception = None

    @classmethod
    def setUpClass(cls):
        current[:] = [resilient_scoop.Pool(2)]

    @classmethod
    def tearDownClass(cls):
        current[0].terminate()

    @property
    def pool(self):
        return current[0]
"""


def test_our_pool_passes_the_tests_of_python_s_pool(place: Place) -> None:
    pytest.importorskip("test._test_multiprocessing", reason="this Python comes without its tests")
    place.write(CPYTHON, "our_pool.py")

    done = subprocess.run(
        [sys.executable, "-m", "unittest", "our_pool"],
        cwd=place.folder, env=place.env(), capture_output=True, text=True, timeout=90, check=False,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    ran = int(done.stderr.rpartition("Ran ")[2].split()[0])
    assert ran >= 19, done.stderr
    assert "skipped" not in done.stderr
    place.assert_nothing_left()


def python(place: Place) -> str:
    """Run the script without `rscoop`; return what it prints."""
    done = subprocess.run(
        [sys.executable, "script.py"],
        cwd=place.folder, env=place.env(), capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    place.assert_nothing_left()
    return done.stdout


def test_a_program_finds_the_results_of_its_pool_when_it_is_started_again(place: Place) -> None:
    place.write("""
        from resilient_scoop import Pool

        def square(x):
            with open("ledger", "a") as file:
                file.write(f"{x}\\n")
            return x * x

        if __name__ == "__main__":
            with Pool(2, run="squares") as pool:
                print(sum(pool.map(square, range(20))), sum(pool.imap_unordered(square, range(20, 30))))
                print(pool.starmap(pow, [(2, 3), (3, 2)]), pool.size)
    """)

    first, second = python(place), python(place)

    sums = [sum(x * x for x in part) for part in (range(20), range(20, 30))]
    assert first == second == f"{sums[0]} {sums[1]}\n[8, 9] 2\n"
    assert len(ledger(place)) == 30


@pytest.mark.parametrize(
    "end", ["pass", "pool.close()", "del pool", "raise SystemExit(0)", "pool.terminate()"]
)
def test_nothing_is_left_of_a_pool_that_the_program_does_not_end(place: Place, end: str) -> None:
    place.write(f"""
        import time
        from resilient_scoop import Pool

        if __name__ == "__main__":
            pool = Pool(2)
            asked = pool.map_async(time.sleep, [0.2] * 4)
            print(pool.apply(abs, (-1,)))
            {end}
    """)

    assert python(place) == "1\n"


def test_terminate_ends_running_calls_and_waiting_threads_get_an_error(place: Place) -> None:
    place.write("""
        import threading, time
        from resilient_scoop import Pool

        def get(later):
            try:
                later.get()
            except Exception as error:
                print(type(error).__name__)

        if __name__ == "__main__":
            pool = Pool(2)
            later = pool.map_async(time.sleep, [60] * 50)
            waiter = threading.Thread(target=get, args=(later,))
            waiter.start()
            started = time.monotonic()
            pool.terminate()
            pool.join()
            waiter.join()
            print(time.monotonic() - started < 10)
    """)

    assert python(place) == "SessionClosedError\nTrue\n"


def test_terminate_in_a_run_does_not_affect_other_calls(place: Place) -> None:
    done = place.run("""
        import time
        from resilient_scoop import Pool, futures

        if __name__ == "__main__":
            other = futures.submit(pow, 2, 5)
            pool = Pool()
            later = pool.map_async(time.sleep, [0.5] * 30)
            started = time.monotonic()
            pool.terminate()
            pool.join()
            print(time.monotonic() - started < 5, other.result())
            try:
                later.get()
            except Exception as error:
                print(type(error).__name__)
            with Pool() as pool:
                print(pool.map(abs, [-1, -2]))
    """)

    assert done.expect() == "True 32\nCancelledError\n[1, 2]\n"


def test_tasks_and_threads_may_have_pools(place: Place) -> None:
    done = place.run("""
        import threading
        from resilient_scoop import Pool, futures

        def square(x):
            return x * x

        def row(n):
            with Pool(3) as pool:
                return sum(pool.map(square, range(n))) + sum(pool.imap_unordered(square, range(n)))

        def one(found, n):
            with Pool() as pool:
                in_order = list(pool.imap(square, range(n)))
                found[n] = pool.map(row, range(n)), pool.apply(square, (n,)), in_order

        if __name__ == "__main__":
            print(list(futures.map(row, range(5))))
            found = {}
            threads = [threading.Thread(target=one, args=(found, n)) for n in (2, 3)]
            [each.start() for each in threads]
            [each.join() for each in threads]
            print(sorted(found.items()))
    """)

    rows = [2 * sum(x * x for x in range(n)) for n in range(5)]
    found = [(n, (rows[:n], n * n, [x * x for x in range(n)])) for n in (2, 3)]
    assert done.expect() == f"{rows}\n{found}\n"
    assert len(place.runs()) == 1


UNORDERED = '''
"""multiprocessing: the order of completion, and an initializer."""

import random
import time
from pathlib import Path

import hooks

given = []


def keep(value):
    given.append(value)


def take_time(x):
    hooks.mark()
    time.sleep(random.random() / 20)
    return given[-1] * x


def main():
    from resilient_scoop import Pool

    order = []
    with Pool(2, keep, (3,)) as pool:
        for value in pool.imap_unordered(take_time, range(40)):
            order.append(value)
            with Path("order").open("a") as file:
                file.write(f"{value}\\n")
    print(order)


if __name__ == "__main__":
    main()
'''


def test_a_resume_repeats_the_order_of_imap_unordered(place: Place) -> None:
    path = place.folder / "unordered.py"
    path.write_text(UNORDERED.lstrip())
    folder = place.folder / "case"
    folder.mkdir()

    printed, _ = Case(Script(path), Place(folder, place.state)).kill_everything()

    order = json.loads(printed)
    assert sorted(order) == [3 * x for x in range(40)]
    seen = list(map(int, (folder / "order").read_text().split()))
    assert seen[-40:] == order
    assert seen[:-40] == order[: len(seen) - 40]
