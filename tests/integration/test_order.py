"""Cancellation and priority of items that a worker has not begun, and items queued after long ones."""

from __future__ import annotations

import json

import pytest

from tests.integration.runs import Place

pytestmark = pytest.mark.real


def test_calls_that_have_not_begun_can_be_cancelled(place: Place) -> None:
    """One worker holds the first items; only the one that it is executing cannot be cancelled."""
    done = place.run(
        """
        import time, pathlib
        from resilient_scoop import futures
        begun = pathlib.Path("begun")
        def work(n):
            with begun.open("a") as file: file.write(f"{n} ")
            time.sleep(1.0 if n == 0 else 0.01)
            return n
        if __name__ == "__main__":
            fs = [futures.submit(work, n) for n in range(6)]
            while not begun.exists(): time.sleep(0.01)
            print([f.cancel() for f in fs])
            print([f.cancelled() for f in fs], [f.done() for f in fs[1:]])
            print(fs[0].result(), fs[0].cancel())
            print(sorted(begun.read_text().split()))
        """,
        workers=1,
    )

    assert done.expect().splitlines() == [
        "[False, True, True, True, True, True]",
        "[False, True, True, True, True, True] [True, True, True, True, True]",
        "0 False",
        "['0']",
    ]


def test_a_cancelled_item_in_the_middle_of_a_running_slice_is_left_out(place: Place) -> None:
    done = place.run(
        """
        import time
        from resilient_scoop import futures
        def work(n):
            if n >= 1000: time.sleep(0.03)
            return n
        if __name__ == "__main__":
            list(futures.map(work, range(1000)))  # measured as quick: what comes next goes in slices
            fs = [futures.submit(work, 1000 + n) for n in range(40)]
            fs[0].result()
            victims = [f for f in reversed(fs) if f.cancel()]
            kept = [f for f in fs if f not in victims]
            print(len(victims) >= 4, sorted(f.result() for f in kept)[0])
            print(all(f.cancelled() for f in victims), len(kept) + len(victims))
        """,
        workers=1,
    )

    assert done.expect().splitlines() == ["True 1000", "True 40"]


def test_cancel_works_in_a_task_and_for_a_call_that_must_not_run_twice(place: Place) -> None:
    done = place.run(
        """
        import time
        from concurrent.futures import CancelledError
        from resilient_scoop import futures
        once = futures.options(idempotent=False)
        def nap(n): time.sleep(0.4); return n
        def nested(_):
            fs = [once.submit(nap, n) for n in range(8)]
            time.sleep(0.2)
            told = [f.cancel() for f in reversed(fs)][::-1]
            return told.count(True) >= 2, [_outcome(f) for f in fs] == [
                "cancelled" if t else n for n, t in enumerate(told)]
        def _outcome(f):
            try: return f.result()
            except CancelledError: return "cancelled"
        if __name__ == "__main__":
            print(futures.submit(nested, 0).result())
        """,
        workers=2,
    )

    assert done.expect() == "(True, True)\n"


def test_calls_of_higher_priority_run_before_all_that_have_not_begun(place: Place) -> None:
    done = place.run(
        """
        import time
        from resilient_scoop import futures
        urgent = futures.options(priority=1)
        def work(n): time.sleep(0.05); return time.monotonic()
        def quick(n): time.sleep(0.05); return time.monotonic()
        if __name__ == "__main__":
            plain = [futures.submit(work, n) for n in range(60)]
            plain[0].result()
            asked = time.monotonic()
            first = [urgent.submit(quick, n) for n in range(4)]
            last = max(f.result() for f in first)
            later = sum(f.result() > last for f in plain)
            print(later >= 40, last - asked < 1.0)
        """,
        workers=2,
    )

    assert done.expect() == "True True\n"


def test_items_queued_after_a_long_one_move_to_an_idle_worker_at_once(place: Place) -> None:
    """Each worker holds two items of an unknown function; one of them takes long."""
    done = place.run(
        """
        import json, time
        from resilient_scoop import futures
        def work(n):
            time.sleep(3.0 if n == 0 else 0.001)
            return time.monotonic()
        if __name__ == "__main__":
            list(futures.map(abs, range(4)))  # both workers are there
            began = time.monotonic()
            fs = [futures.submit(work, n) for n in range(8)]
            print(json.dumps([f.result() - began for f in fs[1:]]))
        """,
        workers=2,
    )

    waited = json.loads(done.expect())
    assert max(waited) < 1.0, waited


def test_cancelling_calls_one_by_one_is_faster_than_the_workers(place: Place) -> None:
    """A worker answers during an item: otherwise each question would arrive when its item already runs."""
    done = place.run("""
        import time
        from resilient_scoop import futures
        def slow(x):
            time.sleep(0.2)
            return x
        if __name__ == "__main__":
            fs = [futures.submit(slow, x) for x in range(40)]
            fs[0].result()
            canceled = [f for f in fs if f.cancel()]
            print(len(canceled) > 20, all(f.cancelled() for f in canceled))
            print([f.result() for f in fs if f not in canceled] == [
                x for x, f in enumerate(fs) if f not in canceled])
    """)
    assert done.expect() == "True True\nTrue\n"
