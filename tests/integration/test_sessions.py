"""Sessions: programs that `rscoop` did not start make journaled calls, and find them again."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from tests.integration.runs import Done, Place, finish, ledger, wait_until

pytestmark = pytest.mark.real

SQUARES = """
import os, sys, time
from resilient_scoop import Executor, Session
def square(n):
    with open("ledger", "a") as file: file.write(f"{n}\\n")
    time.sleep(0.02)
    return n * n
"""


def start(place: Place, text: str, *args: str, name: str = "program.py") -> subprocess.Popen[str]:
    """Start a program with plain Python; its file may be in use by another program already."""
    path = place.folder / name
    if not path.exists() or path.read_text() != textwrap.dedent(text):
        path = place.write(text, name)
    return subprocess.Popen(
        [sys.executable, path.name, *args], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True, cwd=place.folder, env=place.env(), start_new_session=True,
    )  # fmt: skip


def python(place: Place, text: str, *args: str, timeout_s: float = 60) -> Done:
    """Run a program with plain Python; check that it leaves nothing."""
    done = finish(start(place, text, *args), timeout_s=timeout_s)
    place.assert_nothing_left()
    return done


def roles(place: Place, word: str) -> list[int]:
    """Return the processes of a place whose command line has a word."""
    return [pid for pid, line in place.processes().items() if f"entry {word}" in line]


NAMED = (
    SQUARES
    + """
if __name__ == "__main__":
    with Executor(max_workers=2, run="squares") as executor:
        print(sum(executor.map(square, range(100))))
"""
)
ANSWER = f"{sum(n * n for n in range(100))}\n"


@pytest.mark.parametrize("victim", ["program", "everything"])
def test_a_killed_program_finds_its_results_when_it_runs_again(place: Place, victim: str) -> None:
    program = start(place, NAMED)
    wait_until(lambda: len(ledger(place)) > 30, 30)
    if victim == "everything":
        for pid in place.processes():
            with contextlib.suppress(ProcessLookupError):  # its parent has ended it
                if pid != program.pid:
                    os.kill(pid, signal.SIGKILL)
    program.kill()
    finish(program)
    wait_until(lambda: not place.processes(), 15, lambda: f"left: {place.processes()}")
    before = len(ledger(place))
    assert "squares" in place.rscoop("runs").expect()
    assert "square" in place.rscoop("status", "squares").expect()
    assert python(place, NAMED).expect() == ANSWER
    assert len(ledger(place)) - before <= 100 - 20
    begun = len(ledger(place))
    assert python(place, NAMED).expect() == ANSWER
    assert len(ledger(place)) == begun


@pytest.mark.parametrize("victim", ["worker", "broker", "agent"])
def test_a_session_gives_the_same_answer_when_a_process_is_killed(
    place: Place, victim: str
) -> None:
    program = start(place, NAMED)
    wait_until(lambda: len(ledger(place)) > 10, 30)
    found = roles(place, victim)
    assert found, place.processes()
    os.kill(found[0], signal.SIGKILL)
    assert finish(program, timeout_s=60).expect() == ANSWER
    place.assert_nothing_left()


def test_calls_get_an_error_when_the_launcher_is_killed_and_nothing_is_left(place: Place) -> None:
    program = start(place, NAMED)
    wait_until(lambda: len(ledger(place)) > 10, 30)
    for pid in roles(place, "session"):
        os.kill(pid, signal.SIGKILL)
    done = finish(program, timeout_s=60)
    assert done.code == 1, str(done)
    assert "its run has ended" in done.err
    wait_until(lambda: not place.processes(), 20, lambda: f"left: {place.processes()}")
    assert python(place, NAMED).expect() == ANSWER


ENDS = {
    "exit": ("sys.exit(3)", 3),
    "error": ("raise KeyError(1)", 1),
    "os._exit": ("os._exit(4)", 4),
    "kill": ("os.kill(os.getpid(), 9)", -9),
    "open": ("pass", 0),
}


@pytest.mark.parametrize("end", ENDS)
def test_nothing_is_left_however_a_program_ends(place: Place, end: str) -> None:
    line, code = ENDS[end]
    done = finish(
        start(
            place,
            SQUARES
            + f"""
if __name__ == "__main__":
    executor = Executor(max_workers=2)
    print(executor.submit(square, 3).result(), flush=True)
    left = [executor.submit(square, n) for n in range(5)]
    {line}
""",
        ),
        timeout_s=60,
    )
    assert (done.code, done.out) == (code, "9\n"), str(done)
    wait_until(lambda: not place.processes(), 15, lambda: f"left: {place.processes()}")
    if end in ("exit", "error", "open"):
        assert not place.runs(), "a run without a name is removed"
    else:
        wait_until(lambda: not place.runs(), 15, lambda: f"left: {place.runs()}")


def test_calls_use_the_definitions_of_the_program_at_that_moment(place: Place) -> None:
    done = python(
        place,
        """
        from resilient_scoop import Executor
        RATE = 2
        class Config: depth = 1
        def helper(x): return x * RATE
        def work(x): return helper(x) + Config.depth
        def named(x): return "first"
        if __name__ == "__main__":
            with Executor(max_workers=2) as executor:
                def ask(function, *args): return executor.submit(function, *args).result()
                print(ask(work, 3))
                RATE, Config.depth = 5, 7
                print(ask(work, 3), work(3))
                step = 10
                add = lambda x: x + step
                print(ask(add, 1))
                step = 20
                print(ask(add, 1))
                def named(x): return "second"
                print(ask(named, 1))
                class Local:
                    def __init__(self, x): self.x = x
                    def __eq__(self, other): return isinstance(other, Local) and self.x == other.x
                print(ask(lambda each: Local(each.x + 1), Local(1)) == Local(2))
        """,
    )
    assert done.expect().splitlines() == ["7", "22 22", "11", "21", "second", "True"]


def test_a_program_typed_at_a_prompt_makes_calls(place: Place) -> None:
    text = """
from resilient_scoop import Session
session = Session(run="typed", workers=2)
def f(x):
    return x + 1

session.submit(f, 1).result()
def f(x):
    return x + 100

session.submit(f, 1).result()
import statistics
session.submit(lambda: statistics.mean([f(1), f(3)])).result()
exit()
"""
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-i", "-q"], input=text, capture_output=True, text=True,
            cwd=place.folder, env=place.env(), timeout=60, check=True,
        )  # fmt: skip
        assert done.stdout.splitlines() == ["2", "101", "102"], done.stderr
        place.assert_nothing_left()
    refused = place.rscoop("resume", "typed")
    assert refused.code != 0
    assert "run that program again" in refused.err


BAD = """
import os
from resilient_scoop import Executor
class Exits:
    def __setstate__(self, state): raise SystemExit("no")
    def __init__(self): self.one = 1
class Unpicklable:
    def __reduce__(self): raise ValueError("never")
class BadError(Exception):
    def __init__(self, one, two): super().__init__(one)
def good(x): return x
def dies(x): os.kill(os.getpid(), 9)
def gives(kind): return {"exits": Exits, "unpicklable": Unpicklable}[kind]()
def raises(kind):
    if kind == "two": raise BadError(1, 2)
    raise SystemExit(3) if kind == "exit" else KeyError(kind)
if __name__ == "__main__":
    with Executor(max_workers=2) as executor:
        for function, arg in (
            (dies, 1), (gives, "exits"), (gives, "unpicklable"), (good, Unpicklable()), (good, Exits()),
            (raises, "two"), (raises, "exit"), (raises, "key"), (Unpicklable(), 1), (3, 1),
        ):
            try: error = executor.submit(function, arg).exception(timeout=30)
            except TypeError as raised: error = raised
            print(type(error).__name__, executor.submit(good, 7).result(timeout=30))
    try: executor.submit(good, 1)
    except RuntimeError as error: print(error)
    for wrong in (0, -1):
        try: Executor(max_workers=wrong)
        except ValueError as error: print(error)
    try: Executor(initializer=3)
    except TypeError as error: print(error)
"""


def test_each_bad_call_is_an_error_of_its_future_and_the_executor_works_afterwards(
    place: Place,
) -> None:
    assert python(place, BAD).expect().splitlines() == [
        "WorkerCrashedError 7",
        "UnpicklingFailedError 7",
        "PicklingFailedError 7",
        "PicklingFailedError 7",
        "SystemExit 7",
        "BadError 7",
        "SystemExit 7",
        "KeyError 7",
        "TypeError 7",
        "TypeError 7",
        "cannot schedule new futures after shutdown",
        "max_workers must be greater than 0",
        "max_workers must be greater than 0",
        "initializer must be a callable",
    ]


def test_sessions_of_one_process_and_of_two_do_not_disturb_each_other(place: Place) -> None:
    done = python(
        place,
        SQUARES
        + """
import subprocess
if __name__ == "__main__":
    if len(sys.argv) > 1:
        try: Session(run=sys.argv[1], workers=1).close()
        except Exception as error: print(type(error).__name__, sys.argv[1] in str(error) or error)
        else: print("opened")
        sys.exit()
    with Session(run="one", workers=1) as one, Session(run="two", workers=1) as two:
        print([each.submit(square, 3).result() for each in (one, two, one)], flush=True)
        try: Session(run="one")
        except Exception as error: print(type(error).__name__, flush=True)
        for name in ("one", "three"):
            subprocess.run([sys.executable, sys.argv[0], name], check=True)
        print(one.submit(square, 4).result())
""",
    )
    assert done.expect().splitlines() == [
        "[9, 9, 9]",
        "SessionOpenError",
        "RunBusyError True",
        "opened",
        "16",
    ]


def test_a_forked_child_is_refused_and_the_program_continues(place: Place) -> None:
    done = python(
        place,
        SQUARES
        + """
import multiprocessing
def double(n): return 2 * n
if __name__ == "__main__":
    with Session(workers=1) as session:
        print(session.submit(square, 3).result(), flush=True)
        if os.fork() == 0:
            try: session.submit(square, 1)
            except RuntimeError as error: print("forked child" in str(error), flush=True)
            session.close()
            with Session(workers=1) as own: print(own.submit(square, 5).result(), flush=True)
            os._exit(0)
        os.wait()
        with multiprocessing.get_context("fork").Pool(1) as pool: print(pool.map(double, [4]))
        print(session.submit(square, 4).result())
""",
    )
    assert done.expect().splitlines() == ["9", "True", "25", "[8]", "16"]


def test_the_random_state_of_the_program_does_not_change_while_workers_are_killed(
    place: Place,
) -> None:
    done = python(
        place,
        """
        import os, random, uuid
        import numpy
        from resilient_scoop import Executor
        def work(n):
            mark = f"killed.{n}"
            if n % 5 == 0 and not os.path.exists(mark):
                open(mark, "w").close()
                os.kill(os.getpid(), 9)
            return random.random() < 2
        if __name__ == "__main__":
            random.seed(1); numpy.random.seed(1)
            before = random.getstate(), numpy.random.get_state()
            with Executor(max_workers=2) as executor:
                print(all(executor.map(work, range(20))))
            print(random.getstate() == before[0])
            print((numpy.random.get_state()[1] == before[1][1]).all())
        """,
    )
    assert done.expect().splitlines() == ["True"] * 3


def test_libraries_wait_for_futures_of_an_executor_in_their_own_ways(place: Place) -> None:
    done = python(
        place,
        SQUARES
        + """
import asyncio, queue, threading
import concurrent.futures as cf
async def gather(executor):
    loop = asyncio.get_running_loop()
    return await asyncio.gather(*[loop.run_in_executor(executor, square, n) for n in range(4)])
if __name__ == "__main__":
    with Executor(max_workers=2) as executor:
        print(isinstance(executor, cf.Executor), isinstance(executor.submit(square, 1), cf.Future))
        print(asyncio.run(gather(executor)))
        got = queue.Queue()
        executor.submit(square, 5).add_done_callback(lambda future: got.put(future.result()))
        print(got.get(timeout=10))
        futures = [executor.submit(square, n) for n in range(5)]
        print(sorted(each.result() for each in cf.as_completed(futures)), len(cf.wait(futures).done))
        asked = []
        threads = [threading.Thread(target=lambda n=n: asked.append(executor.submit(square, n).result()))
                   for n in range(8)]
        [each.start() for each in threads]; [each.join() for each in threads]
        print(sorted(asked))
""",
    )
    assert done.expect().splitlines() == [
        "True True",
        "[0, 1, 4, 9]",
        "25",
        "[0, 1, 4, 9, 16] 5",
        "[0, 1, 4, 9, 16, 25, 36, 49]",
    ]


def test_an_executor_in_a_run_and_in_its_tasks_uses_the_run(place: Place) -> None:
    done = place.run(
        SQUARES
        + """
def outer(n):
    with Executor(max_workers=7) as executor: return sum(executor.map(square, range(n)))
if __name__ == "__main__":
    with Executor() as executor:
        print(list(executor.map(outer, [3, 4])), executor.submit(square, 5).result())
    print(len(os.listdir(os.environ["RSCOOP_STATE_DIR"] + "/runs")))
"""
    )
    assert done.expect().splitlines() == ["[5, 14] 25", "1"]


def test_a_session_continues_as_a_run_and_as_a_session_again(place: Place) -> None:
    assert python(place, NAMED).expect() == ANSWER
    begun = len(ledger(place))
    assert "run the program again" in place.rscoop("status", "squares").expect()
    assert place.status("squares")["crashes"] == 0
    resumed = place.rscoop("resume", "-q", "squares")
    assert resumed.expect() == ANSWER
    assert python(place, NAMED).expect() == ANSWER
    assert len(ledger(place)) == begun


def test_a_program_that_was_suspended_for_long_continues(place: Place) -> None:
    program = start(place, NAMED)
    wait_until(lambda: len(ledger(place)) > 10, 30)
    os.kill(program.pid, signal.SIGSTOP)
    time.sleep(12)  # longer than the heartbeat timeout
    os.kill(program.pid, signal.SIGCONT)
    assert finish(program, timeout_s=60).expect() == ANSWER
    place.assert_nothing_left()


def test_an_interrupt_ends_the_wait_and_a_later_session_has_the_results(place: Place) -> None:
    program = start(place, NAMED)
    wait_until(lambda: len(ledger(place)) > 30, 30)
    os.kill(program.pid, signal.SIGINT)
    done = finish(program, timeout_s=60)
    assert "KeyboardInterrupt" in done.err, str(done)
    place.assert_nothing_left()
    begun = len(ledger(place))
    assert python(place, NAMED).expect() == ANSWER
    assert len(ledger(place)) - begun <= 100 - 25


INITIALIZERS = """
import os
from resilient_scoop import Executor
def begin(word): open(f"{word}.{os.getpid()}", "w").close()
def has_begun(word, n): return os.path.exists(f"{word}.{os.getpid()}")
def outer(n):
    with Executor(initializer=begin, initargs=("task",)) as executor:
        return executor.submit(has_begun, "task", n).result()
if __name__ == "__main__":
    with Executor(2, initializer=begin, initargs=("one",)) as executor:
        print(all(executor.map(has_begun, ["one"] * 8, range(8))))
        print(all(executor.map(outer, range(4))))
    with Executor(2, initializer=begin, initargs=("two",)) as executor:
        print(all(executor.map(has_begun, ["two"] * 8, range(8))))
"""


def test_each_initializer_runs_in_each_worker_whichever_executor_is_first(place: Place) -> None:
    assert place.run(INITIALIZERS).expect().split() == ["True"] * 3
    assert python(place, INITIALIZERS).expect().split() == ["True"] * 3


PREPARED = """
from pathlib import Path
from resilient_scoop import Executor, Pool, futures
def begin(word): pass
@futures.task(retries=1)
def flaky(n):
    path = Path(f"tried.{n}")
    if not path.exists():
        path.touch()
        raise OSError(n)
    with open("ledger", "a") as file: file.write(f"{n}\\n")
    return n * FACTOR
if __name__ == "__main__":
    with Executor(2, run="executor", initializer=begin, initargs=("WORD",)) as executor:
        print(list(executor.map(flaky, range(3))))
    with Pool(2, run="pool", initializer=begin, initargs=("WORD",)) as pool:
        print(pool.map(flaky, range(3, 6)))
"""


def prepared(place: Place, factor: str, word: str) -> tuple[list[str], int]:
    """Return what the program prints, and how many calls it computes."""
    before = len(ledger(place))
    done = python(place, PREPARED.replace("FACTOR", factor).replace("WORD", word))
    return done.expect().splitlines(), len(ledger(place)) - before


def test_calls_after_an_initializer_count_as_calls_of_their_function(place: Place) -> None:
    """They have its options and its name, and depend on its code and the initializer's arguments."""
    assert prepared(place, "2", "one") == (["[0, 2, 4]", "[6, 8, 10]"], 6)
    assert prepared(place, "2", "one") == (["[0, 2, 4]", "[6, 8, 10]"], 0)
    assert prepared(place, "3", "one") == (["[0, 3, 6]", "[9, 12, 15]"], 6)
    assert prepared(place, "3", "two") == (["[0, 3, 6]", "[9, 12, 15]"], 6)
    for run in ("executor", "pool"):
        assert [each["name"] for each in place.status(run)["functions"]] == ["flaky"]


IN_CALLBACKS = """
import concurrent.futures as cf, threading, time
from resilient_scoop import Executor, futures
def square(n):
    time.sleep(0.05)
    return n * n
def said(future, ask):
    found, done = [], threading.Event()
    def call(_):
        try: found.append(ask())
        except Exception as error: found.append(type(error).__name__)
        done.set()
    future.add_done_callback(call)
    return found[0] if done.wait(10) else "waits"
def other():
    with Executor(1) as another: return another.submit(square, 4).result(10)
if __name__ == "__main__":
    with Executor(2) as executor:
        def begin(n): return executor.submit(square, n)
        print(said(begin(1), lambda: begin(2).result(10)), said(begin(3), lambda: begin(4).exception(10)))
        print(said(begin(5), lambda: list(executor.map(square, range(3)))))
        print(said(begin(6), lambda: cf.wait([begin(7)], 10)))
        print(said(begin(8), lambda: len(list(cf.as_completed([begin(9)], 10)))))
        print(said(begin(10), executor.shutdown))
    if not ORIGIN:
        with Executor(2) as executor:
            print(said(executor.submit(square, 2), executor._session.drain))
            print(said(executor.submit(square, 3), other))
    else:
        late = futures.submit(square, 12)
        print(said(futures.submit(square, 11), lambda: late.result(10)))
"""
ASKED = "4 None\n[0, 1, 4]\nRuntimeError\nRuntimeError\nRuntimeError\n"


def test_a_callback_may_wait_for_other_calls_but_not_for_all_calls(place: Place) -> None:
    program = IN_CALLBACKS.replace("ORIGIN", "False")
    assert python(place, program).expect() == f"{ASKED}RuntimeError\n16\n"

    script = IN_CALLBACKS.replace("ORIGIN", "True")
    assert place.run(script).expect() == f"{ASKED}144\n"


HELD = """
import threading
from resilient_scoop import Executor
lock, order, done = threading.Lock(), [], threading.Event()
def first(_):
    with lock:
        second.add_done_callback(other)
        executor.submit(abs, -2).result(10)
        order.append("first")
def other(_):
    with lock: order.append("other")
    done.set()
if __name__ == "__main__":
    with Executor(1) as executor:
        one, second = executor.submit(abs, -1), executor.submit(abs, -3)
        one.add_done_callback(first)
        print(done.wait(20), order)
"""


def test_no_callback_begins_in_the_middle_of_one_that_waits(place: Place) -> None:
    text = HELD.replace("abs, -1)", "slow, -1)").replace("abs, -3)", "slow, -3)")
    text = text.replace(
        "if __name", "def slow(n): import time; time.sleep(0.3); return n\nif __name"
    )
    assert python(place, text).expect() == "True ['first', 'other']\n"


FAILING = """
import sys
from resilient_scoop import Executor, futures
def read(name):
    with open("ledger", "a") as file: file.write("read\\n")
    return open(name).read()
def outer(name): return futures.submit(read, name).result()
def said(future):
    error = future.exception()
    return future.result() if error is None else type(error).__name__
if __name__ == "__main__":
    with Executor(2, run="failing", retry_failed="again" in sys.argv) as executor:
        print(*map(said, [executor.submit(f, "input") for f in (read, outer, len)]))
"""


def test_failed_calls_are_listed_and_computed_again_only_on_request(place: Place) -> None:
    errors = "FileNotFoundError FileNotFoundError 5\n"
    assert python(place, FAILING).expect() == errors
    listed = place.rscoop("failures", "failing")
    assert "read('input'): FileNotFoundError" in listed.expect()
    assert "open its session with retry_failed=True" in listed.err
    assert "with retry_failed=True" in place.rscoop("status", "failing").expect()

    (place.folder / "input").write_text("there")

    assert python(place, FAILING).expect() == errors
    assert len(ledger(place)) == 2
    assert python(place, FAILING, "again").expect() == "there there 5\n"
    assert python(place, FAILING, "again").expect() == "there there 5\n"
    assert len(ledger(place)) == 4


def test_a_session_works_in_a_folder_whose_path_is_too_long_for_a_socket(place: Place) -> None:
    place.state = place.folder / ("deep" * 30)
    for _ in range(3):
        assert python(place, NAMED).expect() == ANSWER


def test_an_invalid_name_is_refused(place: Place) -> None:
    place.write("print(1)", "other.py")
    place.rscoop("run", "-q", "-n", "1", "--name", "taken", "other.py").expect()
    done = python(
        place,
        """
        from resilient_scoop import Session
        if __name__ == "__main__":
            for name in ("taken", "a/b", "last", "", "..", " ", "x" * 300, 3):
                try: Session(run=name, workers=1)
                except Exception as error: print(type(error).__name__)
        """,
    )
    assert done.expect().split() == ["UsageError"] * 7 + ["TypeError"]


def test_invalid_numbers_are_refused_and_those_of_numpy_are_accepted(place: Place) -> None:
    done = python(
        place,
        """
        import numpy
        from resilient_scoop import Executor, Session
        if __name__ == "__main__":
            for wrong in (dict(workers=1.5), dict(workers="2"), dict(workers=0), dict(seed="a"),
                          dict(seed=1.5), dict(seed=-1), dict(seed=2**70)):
                try: Session(**wrong)
                except (TypeError, ValueError) as error: print(type(error).__name__)
            with Session(workers=numpy.int64(1), seed=numpy.int64(7)) as session:
                print(session.submit(abs, -3).result())
            with Executor(numpy.int64(1)) as executor:
                print(executor.submit(abs, -4).result())
        """,
    )
    assert done.expect().split() == [
        *(
            "TypeError",
            "TypeError",
            "ValueError",
            "TypeError",
            "TypeError",
            "ValueError",
            "ValueError",
        ),
        *("3", "4"),
    ]
    assert not place.runs()


def test_a_session_uses_the_program_that_opens_it_now(place: Place) -> None:
    """The script may have been renamed since, or may be started with other arguments in another folder."""
    text = (
        SQUARES
        + """
def where(n): return sys.argv[1:], os.path.basename(os.getcwd()), n
if __name__ == "__main__":
    with Session(run="moved", workers=1) as session:
        print(session.submit(square, 3).result(), *session.submit(where, int(sys.argv[1])).result())
"""
    )
    assert python(place, text, "1").expect() == f"9 ['1'] {place.folder.name} 1\n"
    (place.folder / "program.py").rename(place.folder / "renamed.py")
    elsewhere = place.folder / "elsewhere"
    elsewhere.mkdir()
    done = subprocess.run(
        [sys.executable, "../renamed.py", "2"], cwd=elsewhere, env=place.env(), text=True,
        capture_output=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.stdout == "9 ['2'] elsewhere 2\n", done.stderr
    assert len(ledger(place)) == 1


def test_only_one_of_two_programs_gets_a_new_name_that_both_open_at_the_same_moment(
    place: Place,
) -> None:
    text = """
import sys, time
from resilient_scoop import Session
from resilient_scoop.errors import RunBusyError
if __name__ == "__main__":
    try: session = Session(run="new", workers=1)
    except RunBusyError: print("busy")
    else:
        print("open", flush=True)
        time.sleep(3)
        session.close()
"""
    programs = [start(place, text) for _ in range(3)]
    said = sorted(finish(program, timeout_s=60).expect().strip() for program in programs)
    assert said == ["busy", "busy", "open"]
    assert len(place.runs()) == 1
    place.assert_nothing_left()


def test_an_executor_that_is_dropped_ends_its_processes_after_its_calls(place: Place) -> None:
    done = python(
        place,
        SQUARES
        + """
import gc
import psutil
if __name__ == "__main__":
    futures = [Executor(1).submit(square, n) for n in range(2)]
    print([future.result() for future in futures])
    gc.collect()
    until = time.monotonic() + 20
    while psutil.Process().children() and time.monotonic() < until: time.sleep(0.05)
    print(len(psutil.Process().children()), os.listdir(os.environ["RSCOOP_STATE_DIR"] + "/runs"))
""",
    )
    assert done.expect().splitlines() == ["[0, 1]", "0 []"]


def test_functions_of_a_test_module_that_pytest_has_rewritten_are_sent(place: Place) -> None:
    place.write(
        """
        import pytest
        from resilient_scoop import Executor
        def positive(x):
            assert x > 0, "positive"
            return x
        def twice(x): return 2 * positive(x)
        class Adder:
            def __init__(self, x): self.x = x
            def add(self, y):
                assert y
                return self.x + y
        class TestAll:
            @staticmethod
            def more(x): return x + 1
            def test_each(self):
                with Executor(1) as executor:
                    assert executor.submit(positive, 1).result() == 1
                    assert executor.submit(twice, 1).result() == 2
                    assert executor.submit(Adder(1).add, 1).result() == 2
                    assert executor.submit(self.more, 1).result() == 2
                    with pytest.raises(AssertionError): executor.submit(positive, -1).result()
        """,
        "test_program.py",
    )
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_program.py"],
        cwd=place.folder, env=place.env(), text=True, capture_output=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    place.assert_nothing_left()


def test_a_program_without_a_guard_is_told_to_add_it(place: Place) -> None:
    done = python(
        place,
        """
from resilient_scoop import Session
def square(x): return x * x
with Session(workers=2) as session: print(session.submit(square, 3).result(20))
""",
    )
    assert done.code == 1
    last = done.err.splitlines()[-1]
    assert "SessionClosedError" in last
    assert 'put these calls under `if __name__ == "__main__":`' in last


def test_the_error_contains_the_reason_why_workers_cannot_import_the_program(place: Place) -> None:
    done = python(
        place,
        """
import resilient_scoop
from resilient_scoop import Session
if resilient_scoop.WORKER: stray_name
if __name__ == "__main__":
    with Session(workers=2) as session: print(session.submit(abs, 3).result(20))
""",
    )
    assert done.code == 1
    last = done.err.splitlines()[-1]
    assert "its run has ended (worker w" in last
    assert "NameError: name 'stray_name' is not defined" in last


def test_calls_of_a_session_whose_run_has_ended_fail_like_those_of_a_broken_pool(
    place: Place,
) -> None:
    done = python(
        place,
        """
import psutil, time
from concurrent.futures import wait
from concurrent.futures.process import BrokenProcessPool
from resilient_scoop import Executor
from resilient_scoop.errors import SessionClosedError

if __name__ == "__main__":
    executor = Executor(1)
    waiting = [executor.submit(time.sleep, 60) for _ in range(3)]
    (launcher,) = psutil.Process().children()
    launcher.kill()
    wait(waiting, 30)
    for future in waiting:
        error = future.exception(0)
        print(isinstance(error, BrokenProcessPool), isinstance(error.__cause__, SessionClosedError))
    try: executor.submit(abs, 1)
    except BrokenProcessPool as error: print(error)
    executor.shutdown()
""",
    )
    out = done.expect().splitlines()
    assert out[:3] == ["True True"] * 3
    assert len(out) == 4
    assert "its run has ended" in out[3]


USER_CODE_IN_PICKLING = """
import threading, time
from resilient_scoop import Executor, Session
from resilient_scoop.errors import SessionClosedError

class Nested:
    def __reduce__(self):
        return int, (executor.submit(abs, -3).result(),)

class Closing:
    def __reduce__(self):
        thread = threading.Thread(target=session.close, kwargs={"wait": False})
        thread.start()
        thread.join()
        return int, (7,)

if __name__ == "__main__":
    with Executor(1) as executor:
        print(executor.submit(abs, Nested()).result())
    session = Session(workers=1)
    values = session.map(time.sleep, [0.0, 60.0, 60.0])
    next(values)
    try:
        session.submit(abs, Closing())
    except SessionClosedError:
        print("closed")
    values.close()
"""


def test_calls_and_the_end_of_a_session_may_happen_while_an_argument_is_pickled(
    place: Place,
) -> None:
    done = python(place, USER_CODE_IN_PICKLING)
    assert done.expect() == "3\nclosed\n"
    assert done.err == ""


def test_the_error_contains_the_whole_reason_why_a_run_cannot_be_held(place: Place) -> None:
    python(place, NAMED).expect()
    (run,) = place.runs()
    (run / "lock").unlink()
    (run / "lock").mkdir()
    done = python(place, NAMED)
    assert "the system refused a resource" in done.err
    assert "lock" in done.err


def test_a_callback_of_a_canceled_call_may_cancel_others_and_a_dropped_session_ends_its_bar(
    place: Place,
) -> None:
    done = python(
        place,
        """
import gc, os, threading, time
from concurrent.futures import wait
from resilient_scoop import Session

def hold():
    until = time.monotonic() + 40
    while not os.path.exists("canceled") and time.monotonic() < until: time.sleep(0.01)

if __name__ == "__main__":
    session = Session(workers=1, progress=True)
    running = session.submit(hold)
    first, second = [session.submit(time.sleep, x) for x in (60, 61)]
    first.add_done_callback(lambda _: second.cancel())
    is_canceled = first.cancel()
    open("canceled", "w").close()
    print(is_canceled, bool(wait([second], 20).done), second.cancelled(), running.result(20))
    del session, running, first, second
    gc.collect()
    until = time.monotonic() + 20
    while threading.active_count() > 1 and time.monotonic() < until: time.sleep(0.05)
    print(threading.active_count())
""",
    )
    assert done.expect() == "True True True None\n1\n"
