"""Futures where they cannot be used, and waits whose timeout is negative: one clear error."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.integration.runs import Place

pytestmark = pytest.mark.real


THREADS = """
import time
from concurrent.futures import ThreadPoolExecutor
from resilient_scoop import futures
def work(n): return n * n
def told(function, *args):
    try: return function(*args)
    except RuntimeError as error: return str(error).split(" (")[0]
def uses(n):
    pending, known = futures.submit(work, n), futures.submit(work, n + 1)
    known.result()
    lazy = futures.map(work, range(3))
    with ThreadPoolExecutor(1) as pool:
        return [pool.submit(told, use).result() for use in (
            pending.result, pending.done, pending.cancel, pending.exception, pending.running,
            lambda: pending.add_done_callback(id),
            lambda: len(futures.wait([pending, known]).done),
            lambda: len(list(futures.as_completed([pending]))),
            lambda: next(lazy), lambda: futures.submit(work, 1).result(),
            lambda: list(futures.map_as_completed(work, [1])), lambda: list(futures.map(work, [1, 2])),
            known.result, known.done)], pending.result()
"""
REFUSED = "futures were used in a thread of your own"


def test_threads_of_a_task_are_refused_and_the_task_continues(place: Place) -> None:
    done = place.run(
        THREADS
        + """
if __name__ == "__main__":
    got, last = futures.submit(uses, 1).result()
    print(*[str(each).replace(" ", "_") for each in got], last)
"""
    )
    refused = REFUSED.replace(" ", "_")
    assert done.expect().split() == [refused] * 12 + ["4", "True", "1"]


def test_threads_of_the_script_make_calls_and_wait_for_those_of_the_main_thread(
    place: Place,
) -> None:
    done = place.run(
        THREADS
        + """
if __name__ == "__main__":
    got, last = uses(1)
    print(*[str(each).replace(" ", "_") for each in got], last)
"""
    )
    refused = REFUSED.replace(" ", "_")
    assert done.expect().split() == [
        *("1", "True", "False", "None", "False", "None", "2", "1"),
        *(refused, "1", "[1]", "[1,_4]", "4", "True", "1"),
    ]


def test_threads_of_the_script_make_calls_and_those_of_a_task_are_refused(place: Place) -> None:
    done = place.run("""
        from concurrent.futures import ThreadPoolExecutor
        from resilient_scoop import futures
        def work(n): return n * n
        def told(function):
            try: return function()
            except RuntimeError as error: return str(error).split(";")[0]
        def calls(_):
            with ThreadPoolExecutor(2) as pool:
                return [pool.submit(told, call).result() for call in (
                    lambda: futures.submit(work, 3).result(),
                    lambda: list(futures.map_as_completed(work, [3])))]
        if __name__ == "__main__":
            print(calls(0))
            print(*sorted(set(futures.submit(calls, 0).result())))
    """)
    script, task = done.expect().splitlines()
    assert script == "[9, [9]]"
    assert task == (
        "futures were used in a thread of your own (a call): a task makes calls in its main thread "
        "only, since a replay repeats them in their order"
    )


def test_a_future_of_another_parent_is_refused_with_its_name(place: Place) -> None:
    done = place.run(
        """
        import threading
        from resilient_scoop import futures
        def work(n): return n
        def makes(n):
            threading.main_thread().kept = futures.submit(work, n)
            return n
        def takes(n):
            try: return threading.main_thread().kept.result()
            except RuntimeError as error: return str(error)
        if __name__ == "__main__":
            futures.submit(makes, 3).result()
            print(futures.submit(takes, 0).result())
        """,
        workers=1,
    )
    text = done.expect()
    assert "future 0.0[0].0[0] belongs to another parent, 0.0[0], and not to 0.1[0]" in text


TIMEOUTS = """
import time
from resilient_scoop import futures
def nap(s):
    time.sleep(s)
    return s
def late(wait):
    try: return wait()
    except TimeoutError: return "late"
if __name__ == "__main__":
    f, quick = futures.submit(nap, 1.5), futures.submit(nap, 0)
    quick.result()
    began = time.monotonic()
    print(late(lambda: f.result(timeout=-0.5)), late(lambda: f.exception(timeout=-1)))
    done, rest = futures.wait([f, quick], timeout=-1)
    print(done == {quick}, rest == {f})
    print(late(lambda: [g is quick for g in futures.as_completed([f, quick], timeout=-1)]))
    print(next(futures.as_completed([f, quick], timeout=-1)) is quick)
    print(late(lambda: list(futures.map(nap, [0.7], timeout=-3))))
    print(late(lambda: list(futures.map_as_completed(nap, [0.7], timeout=-3))))
    print(quick.result(timeout=-1), time.monotonic() - began < 1.0)
"""


def test_negative_timeouts_expire_at_once(place: Place) -> None:
    assert place.run(TIMEOUTS).expect().splitlines() == [
        "late late",
        "True True",
        "late",
        "True",
        "late",
        "late",
        "0 True",
    ]


ITERABLES = """
from resilient_scoop import futures
def square(x): return x * x
def breaks(count):
    yield from range(count)
    raise ValueError(f"broke after {count}")
class Sized(list):
    def __iter__(self):
        yield from breaks(3)
def taken(iterator):
    got = []
    try:
        for value in iterator:
            got.append(value)
    except ValueError as error:
        return len(got), sum(got), str(error)
if __name__ == "__main__":
    for count in (0, 2, 16, 1500):
        print(taken(futures.map(square, breaks(count))))
    print(taken(futures.map(square, Sized([1, 2]))))
    print(taken(futures.map(pow, [2] * 9, breaks(2))))
    print(taken(map(square, sorted(futures.map_as_completed(square, range(3))))) is None)
    print(taken(futures.map_as_completed(square, breaks(5))))
"""


def test_an_error_of_an_iterable_is_raised_after_the_results_before_it(place: Place) -> None:
    path = place.write(ITERABLES)
    plain = subprocess.run(
        [sys.executable, "-W", "ignore", str(path)],
        capture_output=True, text=True, check=False, timeout=30,
    )  # fmt: skip
    output = place.run(ITERABLES + "    from resilient_scoop.processes.here import Process\n"
                     "    print(len(Process.session.context.parent.calls.open))\n").expect()  # fmt: skip
    assert output == plain.stdout + "0\n"


def test_a_future_that_is_sent_is_named_with_advice(place: Place) -> None:
    done = place.run("""
        from resilient_scoop import futures
        def square(x): return x * x
        def leaks(x): return {"made": [futures.submit(square, x)]}
        def told(call):
            try: call()
            except Exception as error: print(type(error).__name__, error)
        if __name__ == "__main__":
            f = futures.submit(square, 3)
            told(lambda: futures.submit(square, f))
            told(lambda: list(futures.map(square, [1, {"a": (f, 2)}])))
            (lambda g: told(lambda: futures.submit(lambda: g.result())))(f)
            told(lambda: futures.submit(leaks, 1).result())
            print(f.result())
    """)
    lines = done.expect().splitlines()
    advice = "; pass the result of future 0.0[0] (`.result()`), or have the task make the call"
    assert f"__main__:square cannot be pickled: arg is a Future{advice}" in lines[0]
    assert f"arg['a'][0] is a Future{advice}" in lines[1]
    assert f".<closure>.g is a Future{advice}" in lines[2]
    assert "value['made'][0] is a Future; pass the result of future 0." in lines[3]
    assert lines[4] == "9"
