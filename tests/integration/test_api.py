"""The public interface, called from a script and from tasks, in real runs and without rscoop."""

from __future__ import annotations

import subprocess
import sys
from typing import Final

import pytest

from tests.integration.runs import Place

pytestmark = pytest.mark.real


CALLS = """
import operator, random
from resilient_scoop import futures, shared
def square(x): return x * x
def add(a, b=0): return a + b
def total(n): return sum(futures.map(square, range(n)))
def scans(n): return futures.mapScan(square, operator.add, range(n))
if __name__ == "__main__":
    print(list(futures.map(square, range(5))), list(futures.map(add, [1, 2], [3, 4, 5])))
    print(sorted(futures.map_as_completed(square, range(4))))
    print(futures.submit(add, 1, b=5).result(), futures.submit(total, 4).result())
    print(futures.mapReduce(square, operator.add, range(100)))
    print(futures.mapScan(square, operator.add, range(6)), futures.submit(scans, 4).result())
    print(futures.map_reduce is futures.mapReduce, futures.map_scan is futures.mapScan)
    print(shared.set_const is shared.setConst, shared.get_const is shared.getConst)
    print(list(futures.map(square, [])), list(futures.map(add, [], [1])))
    print(list(futures.map(square, (x for x in range(3)), chunksize=2, timeout=30)))
    fs = [futures.submit(square, n) for n in range(4)]
    done, not_done = futures.wait(fs, return_when=futures.ALL_COMPLETED)
    print(len(done), len(not_done), sorted(f.result() for f in futures.as_completed(fs)))
    print([f.index for f in fs], fs[0].done(), fs[0].running(), fs[0].cancelled())
    futures.shutdown()
"""

CALLED = """\
[0, 1, 4, 9, 16] [4, 6]
[0, 1, 4, 9]
6 14
328350
[0, 1, 5, 14, 30, 55] [0, 1, 5, 14]
True True
True True
[] []
[0, 1, 4]
4 0 [0, 1, 4, 9]
[0, 0, 0, 0] True False False
"""


def test_calls_give_the_documented_results(place: Place) -> None:
    assert place.run(CALLS).expect() == CALLED


def test_the_same_script_without_rscoop_answers_the_same_and_warns_once(place: Place) -> None:
    path = place.write(CALLS)
    done = subprocess.run(
        [sys.executable, str(path)], capture_output=True, text=True, check=False, timeout=30
    )
    assert (done.returncode, done.stdout) == (0, CALLED)
    assert done.stderr.count("RuntimeWarning") == 1
    assert "rscoop run" in done.stderr


SERIAL: Final = """
import sys
from resilient_scoop import futures
def calls():
    future = futures.submit(abs, -1)
    future.add_done_callback(lambda _: 1 / 0)
    print(future.result())
if __name__ == "__main__":
    calls()
"""


@pytest.mark.parametrize(
    ("name", "words", "start"),
    [
        ("a script.py", ["a script.py"], "rscoop run 'a script.py'"),
        ("tool/__main__.py", ["-m", "tool"], "rscoop run -m tool"),
        ("tool/__main__.py", ["tool"], "rscoop run tool"),
        ("part/tool.py", ["-m", "part.tool"], "rscoop run -m part.tool"),
        ("tool.py", ["-c", "import tool; tool.calls()"], "rscoop run script.py"),
    ],
)
def test_the_warning_without_rscoop_names_the_line_and_the_command(
    place: Place, name: str, words: list[str], start: str
) -> None:
    path = place.folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(SERIAL)
    done = subprocess.run(
        [sys.executable, *words], cwd=place.folder, capture_output=True, text=True, check=True
    )
    assert done.stdout == "1\n"
    first, second = done.stderr.splitlines()[:2]
    assert first.partition(":")[0].endswith(name)
    assert ":5: RuntimeWarning: futures run one after another" in first
    assert f"`{start}`" in first
    assert second == "  future = futures.submit(abs, -1)"
    assert "a callback of a future raised" in done.stderr


def test_every_wait_ends_at_its_timeout_or_result(place: Place) -> None:
    done = place.run("""
        import time
        from concurrent.futures import CancelledError
        from resilient_scoop import futures
        def sleep(s): time.sleep(s); return s
        def other(s): time.sleep(s)
        def fail(s): time.sleep(s); raise KeyError(s)
        if __name__ == "__main__":
            slow = futures.submit(sleep, 3)
            fast = futures.submit(sleep, 0.01)
            done, not_done = futures.wait([slow, fast], return_when=futures.FIRST_COMPLETED)
            print(done == {fast}, not_done == {slow})
            done, not_done = futures.wait([slow, fast], timeout=0.1)
            print(done == {fast}, not_done == {slow}, slow.done(), slow.running())
            for wanted in (slow.result, slow.exception):
                try: wanted(timeout=0.05)
                except TimeoutError as error: print("late:", type(error) is TimeoutError)
            try: list(futures.as_completed([slow], timeout=0.05))
            except TimeoutError as error: print("late:", error)
            try: list(futures.map(sleep, [0.01, 0.8], timeout=0.2))
            except TimeoutError as error: print("late map")
            done, not_done = futures.wait(
                [slow, futures.submit(fail, 0.01)], return_when=futures.FIRST_EXCEPTION)
            print(len(done), len(not_done))
            many = [futures.submit(other, 0.3) for _ in range(60)]
            came = [f.cancel() for f in reversed(many)]
            print("cancelled", came[0], many[-1].cancelled(), many[-1].done())
            try: many[-1].result()
            except CancelledError: print("CancelledError")
            bad = futures.submit(fail, 0)
            print(repr(bad.exception()), futures.submit(sleep, 0).exception())
            called = []
            told = futures.submit(sleep, 0.01)
            told.add_done_callback(lambda f: called.append(f.result()))
            told.result()
            told.add_done_callback(lambda f: called.append("again"))
            print(called)
    """)
    assert done.expect().splitlines() == [
        "True True", "True True False True", "late: True", "late: True",
        "late: 1 (of 1) futures unfinished", "late map", "1 1", "cancelled True True True",
        "CancelledError", "KeyError(0) None", "[0.01, 'again']",
    ]  # fmt: skip


def test_one_worker_is_enough_for_any_depth(place: Place) -> None:
    done = place.run(
        """
        from resilient_scoop import futures
        def tree(depth):
            if depth == 0: return 1
            first = futures.submit(tree, depth - 1)
            return first.result() + sum(futures.map(tree, [depth - 1, depth - 1]))
        if __name__ == "__main__":
            print(futures.submit(tree, 5).result())
        """,
        workers=1,
    )
    assert done.expect() == f"{3**5}\n"


def test_constants_are_set_once_and_seen_everywhere(place: Place) -> None:
    done = place.run("""
        from resilient_scoop import futures, shared
        class Model:
            def __init__(self): self.data = bytes(3_000_000)
        def use(x): return shared.getConst("scale", timeout=5)(x)
        def size(_): return len(shared.getConst("model", timeout=5).data), \\
            shared.getConst("model") is shared.getConst("model")
        def set_inside(n): shared.setConst(**{f"inner{n}": n}); return shared.getConst(f"inner{n}")
        def nested(n): return list(futures.map(set_inside, [n])) + list(futures.map(use, [n]))
        def missing(_): return shared.getConst("nothing", timeout=0.05)
        def again(_):
            try: shared.setConst(scale=7)
            except TypeError as error: return type(error).__name__
        if __name__ == "__main__":
            shared.setConst(scale=lambda x: 3 * x, model=Model())
            print(list(futures.map(use, [1, 2])), list(futures.map(size, [0])))
            print(futures.submit(nested, 4).result(), shared.getConst("inner4", timeout=5))
            print(futures.submit(missing, 0).result(), shared.getConst("nothing", timeout=0.05))
            print(futures.submit(again, 0).result())
            try: shared.setConst(scale=8)
            except TypeError as error: print(type(error).__name__, error)
    """)
    lines = done.expect().splitlines()
    assert lines[:4] == [
        "[3, 6] [(3000000, True)]", "[4, 12] 4", "None None", "ConstExistsError"
    ]  # fmt: skip
    assert lines[4].startswith("ConstExistsError the constant 'scale' already has another")


def test_options_of_a_call_do_what_they_say(place: Place) -> None:
    done = place.run("""
        import os, time, tenacity
        from resilient_scoop import futures
        def flaky(path):
            with open(path, "a") as file: file.write("x")
            if os.path.getsize(path) < 3: raise ConnectionError("not yet")
            return os.path.getsize(path)
        @futures.task(retries=5, name="decorated")
        def decorated(path): return flaky(path)
        def note(x):
            time.sleep(0.02)
            with open("order", "a") as file: file.write(f"{x} ")
        if __name__ == "__main__":
            print(futures.options(retries=4).submit(flaky, "a").result())
            policy = tenacity.Retrying(
                stop=tenacity.stop_after_attempt(4), wait=tenacity.wait_none(),
                retry=tenacity.retry_if_exception_type(ConnectionError))
            print(futures.options(retry=policy).submit(flaky, "b").result())
            print(list(futures.map(decorated, ["c"])))
            try: futures.options(retries=1).submit(flaky, "d").result()
            except ConnectionError as error: print("gave up:", error, os.path.getsize("d"))
            for wrong in (dict(timeout=0), dict(retries=-1), dict(idempotent=False, retries=2)):
                try: futures.options(**wrong)
                except Exception as error: print(type(error).__name__, error)
            blocker = [futures.submit(time.sleep, 0.4) for _ in range(2)]
            time.sleep(0.1)
            low = [futures.submit(note, f"low{i}") for i in range(60)]
            high = futures.options(priority=5).submit(note, "high")
            futures.wait([*low, high])
            order = open("order").read().split()
            print(order.index("high") < 30, len(order))
    """)
    lines = done.expect().splitlines()
    assert lines[:4] == ["3", "3", "[3]", "gave up: not yet 2"]
    assert [line.partition(" ")[0] for line in lines[4:7]] == ["UsageError"] * 3
    assert lines[7] == "True 61"


def test_errors_keep_their_class_and_name_the_line_that_raised_them(place: Place) -> None:
    done = place.run("""
        import traceback
        from resilient_scoop import futures
        def deep(x):
            raise LookupError("lost", x)
        def work(x):
            try:
                deep(x)
            except LookupError as error:
                error.add_note("seen on the way")
                raise RuntimeError("wrapped") from error
        if __name__ == "__main__":
            try:
                list(futures.map(work, [3]))
            except RuntimeError as error:
                text = traceback.format_exc()
                print(type(error.__cause__).__name__, error.__cause__.args, error.__cause__.__notes__)
                print("in deep" in text, "in work" in text, "worker w" in text)
    """)
    assert done.expect().splitlines() == [
        "LookupError ('lost', 3) ['seen on the way']", "True True True",
    ]  # fmt: skip


def test_a_process_knows_its_role(place: Place) -> None:
    done = place.run("""
        import resilient_scoop as scoop
        from resilient_scoop import futures
        def tell(_):
            return (scoop.IS_RUNNING, scoop.IS_ORIGIN, scoop.worker == scoop.WORKER,
                    scoop.WORKER[0], scoop.SIZE, scoop.BROKER is not None, scoop.DEBUG)
        if __name__ == "__main__":
            scoop.logger.warning("said")
            print(scoop.IS_RUNNING, scoop.IS_ORIGIN, scoop.WORKER, scoop.SIZE)
            print(futures.submit(tell, 0).result())
    """)
    assert done.expect().splitlines() == [
        "True True origin 2", "(True, False, True, 'w', 2, True, False)",
    ]  # fmt: skip


def test_arguments_are_snapshots_and_items_do_not_share_state(place: Place) -> None:
    done = place.run("""
        from resilient_scoop import futures
        def first(values): return values[0]
        class Counter:
            def __init__(self): self.n = 0
            def __call__(self, _): self.n += 1; return self.n
        def grow(values): values.append(1); return len(values)
        if __name__ == "__main__":
            data = [1]
            future = futures.submit(first, data)
            data[0] = 99
            print(future.result(), data, list(futures.map(grow, [data] * 3)), data)
            print(list(futures.map(Counter(), range(4))))
            seen = []
            def look(_, seen=seen): seen.append(1); return len(seen)
            print(list(futures.map(look, range(3))), seen)
    """)
    assert done.expect().splitlines() == [
        "1 [99] [2, 2, 2] [99]", "[1, 1, 1, 1]", "[1, 1, 1] []",
    ]  # fmt: skip


def test_the_script_of_a_worker_is_imported_in_its_main_thread(place: Place) -> None:
    done = place.run("""
        import signal, threading
        from resilient_scoop import futures
        MAIN = threading.current_thread() is threading.main_thread()
        signal.signal(signal.SIGUSR1, lambda *_: None)
        def work(_): return MAIN, threading.current_thread() is threading.main_thread()
        def threaded(_):
            found = []
            def call():
                try: futures.submit(abs, 1)
                except RuntimeError as error: found.append(str(error)[:36])
            thread = threading.Thread(target=call); thread.start(); thread.join()
            return found
        if __name__ == "__main__":
            print(futures.submit(work, 0).result(), futures.submit(threaded, 0).result())
    """)
    assert done.expect() == "(True, True) ['futures were used in a thread of you']\n"


def test_once_runs_its_function_once_in_the_life_of_a_run(place: Place) -> None:
    text = """
        import os, uuid
        from resilient_scoop import futures
        def draw():
            with open("ledger", "a") as file: file.write("x")
            return uuid.uuid4().hex
        def fail(): raise OSError("no network")
        def inside(n): return futures.once(draw)
        if __name__ == "__main__":
            mine, theirs = futures.once(draw), futures.submit(inside, 1).result()
            try: futures.once(fail)
            except OSError as error: print(error)
            print(mine, theirs)
            if not os.path.exists("go"): raise SystemExit(4)
    """
    first = place.run(text)
    mine, theirs = first.expect(4).splitlines()[1].split()
    (place.folder / "go").touch()
    resumed = place.rscoop("resume", "-q", "last")
    assert resumed.expect() == ""  # all its output was shown before
    assert place.rscoop("logs", "last").expect() == f"no network\n{mine} {theirs}\n"
    assert (place.folder / "ledger").read_text() == "xx"


SAME = """
import random
import numpy
from resilient_scoop import futures
def draw(n):
    return (random.random(), float(numpy.random.rand()), futures.rng().random(),
            futures.rng("named").random())
def parent(n):
    before = random.random()
    inner = list(futures.map(draw, range(3)))
    return before, inner, random.random(), float(numpy.random.rand())
if __name__ == "__main__":
    print(list(futures.map(draw, range(30))))
    print(list(futures.map(parent, range(5))))
    print(random.random(), numpy.random.rand(), futures.rng().random())
    print({"a", "b", "c", "d"})
    print(sorted(futures.map_as_completed(draw, range(5))))
"""


def test_a_seed_gives_the_same_bits_on_any_number_of_workers(place: Place) -> None:
    place.write(SAME)

    def answer(workers: int, seed: int) -> str:
        args = ["run", "-q", "-n", str(workers), "--seed", str(seed), "script.py"]
        return place.rscoop(*args).expect()

    alone = answer(1, 42)
    assert answer(2, 42) == alone
    assert answer(3, 42) == alone
    assert answer(2, 43) != alone
    place.assert_nothing_left()


LARGE = """
import os, sys, time
from pathlib import Path
from resilient_scoop import futures
FOLDER = Path(os.environ["RSCOOP_STATE_DIR"]) / "runs" / os.environ["RSCOOP_RUN_ID"] / "payloads"
def size(path):
    try: return path.stat().st_size
    except FileNotFoundError: return 0  # removed since it was listed
def stored(): return sum(map(size, FOLDER.glob("arg-*")))
def measure(data): return len(data), stored()
def parent(n): return [length for length, _ in futures.map(measure, [bytes(3 << 20)] * n)]
def broken(n):
    futures.submit(measure, bytes(3 << 20))  # not awaited
    return list(futures.map(measure, [bytes(3 << 20), open(os.devnull)]))
if __name__ == "__main__":
    sizes = list(futures.map(measure, (bytes([n]) * (4 << 20) for n in range(64))))
    print({length for length, _ in sizes}, max(most for _, most in sizes) < 100 << 20, stored())
    print(futures.submit(parent, 5).result())
    try:
        futures.submit(broken, 1).result()
    except Exception as error:
        print(type(error).__name__)
    try:
        list(futures.map(measure, [b"x"] * 100 + [open(os.devnull)]))
    except Exception as error:
        print(type(error).__name__)
    print(futures.submit(len, "abc").result(), stored())
"""


def test_few_large_arguments_are_stored_at_a_time_and_all_are_removed(place: Place) -> None:
    done = place.run(LARGE)
    assert done.expect() == (
        f"{{{4 << 20}}} True 0\n{[3 << 20] * 5}\nPicklingFailedError\nPicklingFailedError\n3 0\n"
    )
    (run,) = place.runs()
    assert not list((run / "payloads").glob("arg-*"))
