"""Forked children of scripts and tasks end as in a Python program, and take no part in the run."""

from __future__ import annotations

import signal

import pytest

from tests.integration.runs import Place, finish, wait_until
from tests.integration.test_endings import python

pytestmark = pytest.mark.real

CHILDREN = """
    import atexit, multiprocessing, os, subprocess, sys, threading
    from resilient_scoop import futures

    def square(x):
        return x * x

    def end_of(pid):
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    def child(body):
        # A child that is not ended by `body` goes back to where the fork was, as a copy.
        pid = os.fork()
        if pid == 0:
            body()
        return pid

    def fail():
        raise ValueError("of the child")

    def leave():
        atexit.register(lambda: open(f"exit{os.getpid()}", "w").close())
        threading.Thread(target=lambda: open(f"thread{os.getpid()}", "w").close()).start()
        sys.exit(4)

    def speak():
        print("from the child", flush=True)
        os._exit(5)

    def ends():
        ends = [end_of(child(body)) for body in (fail, leave, speak)]
        context = multiprocessing.get_context("fork")
        process = context.Process(target=square, args=(3,))
        process.start()
        process.join()
        with context.Pool(2) as pool:
            squares = pool.map(square, range(4))
        run = subprocess.run(["true"], preexec_fn=lambda: os.umask(0o77))
        return ends, process.exitcode, squares, run.returncode

    def nested(x):
        # Forks in a task that has waited, in a greenlet of its own.
        before = sum(futures.map(square, range(x)))
        return before, ends(), sum(futures.map(square, range(x, 2 * x)))
"""


def test_children_of_a_script_and_of_tasks_end_as_with_python(place: Place) -> None:
    done = place.run(
        CHILDREN
        + """
    if __name__ == "__main__":
        print(ends(), flush=True)
        print(futures.submit(nested, 3).result(), square(4))
    """,
        workers=1,
        timeout_s=60.0,
    )
    plain = python(place, "script.py")
    lines = [line for line in done.expect().splitlines() if line != "from the child"]
    assert lines == [line for line in plain.stdout.splitlines() if line != "from the child"]
    assert lines[0] == "([1, 4, 5], 0, [0, 1, 4, 9], 0)"
    names = [path.name for path in place.folder.iterdir()]
    # One child of the script and one of a task, under each of the two commands.
    assert sum(name.startswith("thread") for name in names) == 4
    assert sum(name.startswith("exit") for name in names) == 4
    assert place.rscoop("replay", "last").code == 0


def test_futures_in_a_child_raise_one_clear_error(place: Place) -> None:
    done = place.run("""
        import os, sys
        from resilient_scoop import futures

        def square(x):
            return x * x

        def try_all(future):
            pid = os.fork()
            if pid == 0:
                said = set()
                for use in (lambda: futures.submit(square, 2), lambda: list(futures.map(square, [1])),
                            lambda: future.result(), lambda: future.done(), lambda: futures.wait([future])):
                    try:
                        use()
                    except RuntimeError as error:
                        said.add(str(error).replace(str(os.getpid()), "PID"))
                print(*said, file=sys.stderr)
                sys.exit(len(said))
            return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

        def task(x):
            return try_all(futures.submit(square, x))

        if __name__ == "__main__":
            future = futures.submit(square, 3)
            print(try_all(future), future.result(), futures.submit(task, 1).result())
    """)
    assert done.expect() == "1 9 1\n"
    assert (
        "futures were used in process PID, a forked child of origin: a child takes no" in done.err
    )


def test_a_child_that_returns_from_its_task_does_not_act_as_a_worker(place: Place) -> None:
    done = place.run("""
        import os
        from resilient_scoop import futures

        def task(x):
            pid = os.fork()
            if pid == 0:
                return bytearray(3_000_000)  # a result that would be a file
            os.waitpid(pid, 0)
            with open("ledger", "a") as file:
                file.write(f"{x}\\n")
            return x

        if __name__ == "__main__":
            print(sum(futures.map(task, range(20))))
    """)
    assert done.expect() == "190\n"
    assert sorted(map(int, (place.folder / "ledger").read_text().split())) == list(range(20))


def test_children_can_be_interrupted_unless_they_run_under_nohup(place: Place) -> None:
    text = """
        import signal, subprocess, sys
        from resilient_scoop import futures

        def ends(x):
            found = []
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                child = subprocess.Popen(["sleep", "0.5"])
                child.send_signal(number)
                found.append(child.wait())
            return found

        if __name__ == "__main__":
            print(futures.submit(ends, 1).result(), ends(1))
    """
    assert place.run(text).expect() == "[-2, -15, -1] [-2, -15, -1]\n"
    assert place.rscoop("replay", "last").code == 0

    def ignore() -> None:  # as under `nohup`
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    process = place.start("run", "-n", "1", "script.py", preexec_fn=ignore)
    wait_until(lambda: len(place.runs()) == 2 and bool(place.processes()))
    process.send_signal(signal.SIGHUP)
    assert finish(process).expect() == "[-2, -15, 0] [-2, -15, 0]\n"
