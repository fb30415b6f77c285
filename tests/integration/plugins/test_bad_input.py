"""Calls that fail in every way, through joblib and pools: only that call fails, others work."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.integration.runs import Place

pytestmark = pytest.mark.real

SCRIPT = """
    import os, signal, threading
    import joblib
    from joblib import Parallel, delayed
    from resilient_scoop import Pool
    from resilient_scoop.contrib.joblib import register


    def die(x):
        if x == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return x


    class Trap:
        def __init__(self):
            self.value = 1

        def __setstate__(self, state):
            os._exit(7)


    def take(trap):
        return 1


    def lock(x):
        return threading.Lock()


    CALLS = [(die, range(6)), (take, [Trap()]), (lock, [1]), (abs, [threading.Lock()])]


    def say(what):
        try:
            print(what())
        except Exception as error:
            print(type(error).__name__)


    if __name__ == "__main__":
        register()
        with joblib.parallel_config("rscoop", n_jobs=2):
            for function, values in CALLS:
                say(lambda: Parallel()(delayed(function)(value) for value in values))
                say(lambda: Parallel()(delayed(abs)(value) for value in (-1, -2)))
        with Pool(2) as pool:
            for function, values in CALLS:
                say(lambda: pool.map(function, values))
                say(lambda: pool.apply_async(function, (values[-1],)).get(60))
                say(lambda: pool.map(abs, [-1, -2]))
"""

ERRORS = ["WorkerCrashedError", "WorkerCrashedError", "PicklingFailedError", "PicklingFailedError"]
PRINTED = [line for error in ERRORS for line in (error, "[1, 2]")] + [
    line
    for error, alone in zip(ERRORS, ["5", *ERRORS[1:]], strict=True)
    for line in (error, alone, "[1, 2]")
]


def test_a_failing_call_in_a_run_fails_alone(place: Place) -> None:
    place.write(SCRIPT)

    done = place.rscoop("run", "-q", "-n", "2", "script.py", timeout_s=60)

    assert done.expect().splitlines() == PRINTED
    place.assert_nothing_left()


def test_a_failing_call_without_a_run_fails_alone(place: Place) -> None:
    place.write(SCRIPT)

    done = subprocess.run(
        [sys.executable, "script.py"],
        cwd=place.folder, env=place.env(), capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == PRINTED
    place.assert_nothing_left()
