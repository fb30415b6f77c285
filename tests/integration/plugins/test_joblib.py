"""The backend of joblib: error and timeout paths, generators, batches, nested calls, threads, replays."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.runs import Place, ledger

pytestmark = pytest.mark.real

HEAD = """
import multiprocessing, os, threading, time, warnings
import joblib
from joblib import Parallel, delayed
from resilient_scoop import Executor, futures
from resilient_scoop.contrib.joblib import register

warnings.simplefilter("ignore")


def note(text):
    with open("ledger", "a") as file:
        file.write(f"{text}\\n")


def square(x):
    note(x)
    return x * x


def refuse_three(x):
    note(x)
    if x == 3:
        raise KeyError(x)
    return x


def wait(seconds):
    time.sleep(seconds)
    return seconds


def works():
    return Parallel(n_jobs=2)(delayed(abs)(x) for x in (-1, -2)) == [1, 2]

"""


def run(place: Place, functions: str, main: str, *args: str, wrapped: bool = True) -> str:
    """Run a script whose main block is in `parallel_config`; return what it prints."""
    block = "    register()\n    with joblib.parallel_config('rscoop'):\n" if wrapped else ""
    lines = main.strip("\n").splitlines()
    body = "".join(f"        {line}\n" for line in lines)
    text = f"{HEAD}{functions}\n\nif __name__ == '__main__':\n{block or '    if True:' + chr(10)}{body}"
    (place.folder / "script.py").write_text(text)
    done = place.rscoop("run", "-q", "-n", "2", *args, "script.py", timeout_s=60)
    place.assert_nothing_left()
    return done.expect()


def test_the_error_of_a_task_is_raised_and_the_backend_works_afterwards(place: Place) -> None:
    out = run(
        place, "",
        """
try:
    Parallel(n_jobs=2)(delayed(refuse_three)(x) for x in range(50))
except KeyError as error:
    print("error", error)
try:
    Parallel(n_jobs=2)(delayed(abs)(x) for x in [threading.Lock(), 1])
except Exception as error:
    print(type(error).__name__, "abs" in str(error) or "lock" in str(error))
print(works())
""",
    )  # fmt: skip

    assert out == "error 3\nPicklingFailedError True\nTrue\n"
    assert len(ledger(place)) < 50


def test_an_error_of_the_iterator_of_tasks_is_raised(place: Place) -> None:
    out = run(
        place,
        """
def tasks():
    for x in range(8):
        yield delayed(square)(x)
    raise RuntimeError("no more")
""",
        """
try:
    Parallel(n_jobs=2)(tasks())
except RuntimeError as error:
    print("error", error)
print(works())
""",
    )

    assert out == "error no more\nTrue\n"


def test_a_task_that_takes_longer_than_the_timeout_raises(place: Place) -> None:
    out = run(
        place, "",
        """
for return_as in ("list", "generator"):
    started = time.monotonic()
    try:
        list(Parallel(n_jobs=2, timeout=0.3, return_as=return_as)(delayed(wait)(2) for x in range(20)))
    except multiprocessing.TimeoutError as error:
        print(error, time.monotonic() - started < 2)
    print(works())
""",
    )  # fmt: skip

    line = "a task of joblib has no result after 0.3 s: raise `timeout=` of Parallel True\nTrue\n"
    assert out == 2 * line


def test_a_generator_of_results_is_lazy_and_may_be_left_early(place: Place) -> None:
    out = run(
        place, "",
        """
taken = []
def tasks():
    for x in range(10**6):
        taken.append(x)
        yield delayed(square)(x)
results = Parallel(n_jobs=2, return_as="generator")(tasks())
print([next(results) for _ in range(30)] == [x * x for x in range(30)])
results.close()
print(len(taken) < 100, works())
unordered = Parallel(n_jobs=2, return_as="generator_unordered")(delayed(square)(x) for x in range(9))
print(list(unordered))
""",
    )  # fmt: skip

    assert out == "True\nTrue True\n[0, 1, 4, 9, 16, 25, 36, 49, 64]\n"


def test_a_parallel_in_a_parallel_in_a_parallel_uses_the_run(place: Place) -> None:
    out = run(
        place,
        """
def row(n):
    return sum(Parallel(n_jobs=-1)(delayed(square)(x) for x in range(n)))


def table(n):
    named = Parallel(n_jobs=-1, backend="rscoop")(delayed(square)(x) for x in range(2))
    return sum(Parallel(n_jobs=-1)(delayed(row)(x) for x in range(n))) + sum(named)
""",
        """
print(Parallel(n_jobs=-1)(delayed(table)(n) for n in range(5)))
""",
    )

    rows = [sum(x * x for x in range(n)) for n in range(5)]
    assert out == f"{[sum(rows[:n]) + 1 for n in range(5)]}\n"
    assert place.status()["done"] == 5 + 10 + 10 + 10


def test_a_task_of_the_run_may_use_all_jobs_of_joblib(place: Place) -> None:
    """Without the backend, joblib starts its own processes or threads in the worker."""
    out = run(
        place,
        """
def with_backend(n):
    register()
    with joblib.parallel_config("rscoop"):
        return Parallel(n_jobs=-1)(delayed(square)(x) for x in range(n))


def without(n):
    return Parallel(n_jobs=-1)(delayed(abs)(x) for x in range(n))
""",
        """
print(list(futures.map(with_backend, range(4))))
print(list(futures.map(without, range(4))))
""",
        wrapped=False,
    )

    assert out == (
        f"{[[x * x for x in range(n)] for n in range(4)]}\n{[list(range(n)) for n in range(4)]}\n"
    )
    assert len(ledger(place)) == 6


def test_the_figures_of_a_run_name_the_functions_of_tasks(place: Place) -> None:
    run(
        place,
        """
class Half:
    def of(self, x):
        return x / 2


def nested(n):
    return Parallel(n_jobs=2)(delayed(abs)(x) for x in range(n))
""",
        """
Parallel(n_jobs=2)(delayed(square)(x) for x in range(4))
Parallel(n_jobs=2)(delayed(Half().of)(x) for x in range(3))
Parallel(n_jobs=2)(delayed(nested)(2) for _ in range(1))
""",
    )

    done = {each["name"]: each["done"] for each in place.status()["functions"]}

    assert done == {"square": 4, "Half.of": 3, "nested": 1, "abs": 2}


def test_an_executor_in_a_task_uses_the_run(place: Place) -> None:
    out = run(
        place,
        """
def ask(n):
    with Executor(max_workers=3) as executor:
        first = executor.submit(square, n)
        return first.result() + sum(executor.map(square, range(n)))
""",
        """
print(list(futures.map(ask, range(5))))
""",
        wrapped=False,
    )

    assert out == f"{[n * n + sum(x * x for x in range(n)) for n in range(5)]}\n"
    assert len(place.runs()) == 1
    assert place.status()["done"] == 5 + 5 + 10


def test_threads_of_the_script_may_each_use_a_parallel(place: Place) -> None:
    out = run(
        place,
        """
def one(found, n):
    with joblib.parallel_config("rscoop"):
        found[n] = sum(Parallel(n_jobs=2)(delayed(square)(x) for x in range(n)))
""",
        """
found = {}
threads = [threading.Thread(target=one, args=(found, n)) for n in (10, 20, 30)]
[each.start() for each in threads]
[each.join() for each in threads]
print([found[n] for n in (10, 20, 30)])
""",
    )

    assert out == f"{[sum(x * x for x in range(n)) for n in (10, 20, 30)]}\n"


BATCHES = """
total = sum(Parallel(n_jobs=int(os.environ["JOBS"]), batch_size=SIZE(), pre_dispatch=os.environ["AHEAD"])(
    delayed(square)(x) for x in range(100)))
if os.environ.get("CRASH"):
    os._exit(9)
print(total)
"""
SIZE = """
def SIZE():
    text = os.environ["BATCH"]
    return text if text == "auto" else int(text)
"""


def test_a_resume_with_other_batches_and_jobs_computes_nothing_again(place: Place) -> None:
    place.environ |= {"JOBS": "2", "BATCH": "auto", "AHEAD": "2*n_jobs", "CRASH": "1"}
    with pytest.raises(AssertionError):
        run(place, SIZE, BATCHES)
    assert len(ledger(place)) == 100

    done = place.rscoop(
        "resume", "-q", "--env", "JOBS=4", "--env", "BATCH=7", "--env", "AHEAD=all",
        "--env", "CRASH=", "last",
    )  # fmt: skip

    assert done.expect() == f"{sum(x * x for x in range(100))}\n"
    assert len(ledger(place)) == 100


def test_a_changed_function_is_computed_again(place: Place) -> None:
    place.environ |= {"JOBS": "2", "BATCH": "auto", "AHEAD": "2*n_jobs", "CRASH": "1"}
    with pytest.raises(AssertionError):
        run(place, SIZE, BATCHES)
    script = place.folder / "script.py"
    script.write_text(script.read_text().replace("return x * x", "return x * x + 1"))

    done = place.rscoop("resume", "-q", "--env", "CRASH=", "last")

    assert done.expect() == f"{sum(x * x + 1 for x in range(100))}\n"


OUTSIDE = (
    HEAD
    + """
if __name__ == "__main__":
    with Executor(max_workers=2, run="named") as executor:
        register(executor=executor)
        with joblib.parallel_config("rscoop"):
            print(sum(Parallel(n_jobs=-1)(delayed(square)(x) for x in range(40))))
            print(Parallel(n_jobs=-1)(delayed(works)() for _ in range(2)))
"""
)


def python(place: Place) -> str:
    """Run the script without `rscoop`; return what it prints."""
    done = subprocess.run(
        [sys.executable, "script.py"],
        cwd=place.folder, env=place.env(), capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    place.assert_nothing_left()
    return done.stdout


def test_a_program_outside_a_run_uses_an_executor_and_continues_it(place: Place) -> None:
    place.write(OUTSIDE)
    expected = f"{sum(x * x for x in range(40))}\n[True, True]\n"

    assert [python(place), python(place)] == [expected, expected]

    assert len(ledger(place)) == 40


def test_a_program_may_register_again_after_its_executor(place: Place) -> None:
    again = """
    register()
    with joblib.parallel_config("rscoop"):
        print(works(), works())
"""
    place.write(OUTSIDE + again)

    assert python(place).endswith("[True, True]\nTrue True\n")


def test_a_program_outside_a_run_needs_no_executor(place: Place) -> None:
    text = OUTSIDE.replace('Executor(max_workers=2, run="named")', "open(os.devnull)")
    place.write(text.replace("register(executor=executor)", "register()"))

    assert python(place).endswith("[True, True]\n")


LEFT_OUT = (
    # Processes of other backends: they do not know the backend, or are forked from an open session.
    "test_nested_loop[multiprocessing-rscoop]", "test_nested_loop[loky-rscoop]",
    "test_nested_loop[back_compat_backend-rscoop]",
    # Results come in the order of the tasks: a resume must repeat it.
    "test_parallel_unordered_generator_returns_fastest_first",
)  # fmt: skip

PLUGIN = """
from resilient_scoop import Executor
from resilient_scoop.contrib.joblib import register

executor = None


def pytest_configure(config):
    global executor
    executor = Executor(max_workers=2)
    register(executor=executor)


def pytest_unconfigure(config):
    executor.shutdown()


def pytest_collection_modifyitems(config, items):
    left_out = {left_out}
    items[:] = [each for each in items if not any(name in each.nodeid for name in left_out)]
"""


@pytest.mark.plugins
@pytest.mark.timeout(400)
def test_the_backend_passes_the_tests_that_joblib_has_for_each_backend(tmp_path: Path) -> None:
    """All tests of joblib that name our backend, after it is registered before their collection."""
    (tmp_path / "our_backend.py").write_text(PLUGIN.replace("{left_out}", repr(LEFT_OUT)))
    place = Place(tmp_path, tmp_path / "state")

    done = subprocess.run(
        [
            sys.executable, "-m", "pytest", "-q", "-p", "our_backend", "-p", "no:cacheprovider",
            "-p", "no:xdist", "--timeout", "60", "--pyargs", "joblib.test.test_parallel", "-k", "rscoop",
        ],
        cwd=tmp_path,
        env={**place.env(), "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])},
        capture_output=True, text=True, timeout=390, check=False,
    )  # fmt: skip

    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert int(done.stdout.rpartition(" passed")[0].split()[-1].lstrip("\x1b[32m")) >= 70
    place.assert_nothing_left()
