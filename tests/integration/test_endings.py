"""The end of a script and of a worker: the steps of Python after the last line."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.integration.runs import Place

pytestmark = pytest.mark.real

LAST_THINGS = """
    import atexit, concurrent.futures, pathlib, sys, tempfile, threading, time, weakref
    import helper
    from resilient_scoop import futures

    def square(x):
        return x * x

    def write(name, after_s):
        time.sleep(after_s)
        helper.folder.joinpath(name).write_text(name)

    class Closing:
        def __init__(self, name):
            self.name = name
        def __del__(self):
            print("closed", self.name, square(3))  # its globals are there

    def fail():
        kept = Closing("local")
        return {}["missing"]

    def main():
        for name in "abc":
            futures.submit(write, "task-" + name, 0.1)
        futures.submit(square, 5).add_done_callback(lambda future: write("callback", 0))
        return 3

    if __name__ == "__main__":
        closing = Closing("global")
        weakref.finalize(closing, print, "finalizer")
        helper.log.write("line without an end")
        out = open(helper.folder / "out", "w")
        print(*futures.map(square, range(5)), sep="\\n", file=out)
        scratch = tempfile.TemporaryDirectory(dir=helper.folder)
        atexit.register(lambda: print("handler", list(futures.map(square, range(3)))))
        atexit.register(lambda: 1 / 0)
        threading.Thread(target=lambda: (time.sleep(0.4), print("thread"))).start()
        concurrent.futures.ThreadPoolExecutor(1).submit(lambda: (time.sleep(0.2), print("pool")))
        if sys.argv[1] == "exit":
            sys.exit(main())
        main()
        if sys.argv[1] == "text":
            sys.exit("a last word")
        if sys.argv[1] == "fail":
            fail()
"""
HELPER = """
    import pathlib, sys

    folder = pathlib.Path(sys.argv[2])
    log = open(folder / "log", "a")
"""


def python(place: Place, *args: str) -> subprocess.CompletedProcess[str]:
    """Run a script with plain Python."""
    environ = place.env() | {"PYTHONWARNINGS": "ignore", "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run(
        [sys.executable, *args],
        cwd=place.folder, env=environ, capture_output=True, text=True, check=False, timeout=30,
    )  # fmt: skip


@pytest.mark.parametrize("how", ["return", "exit", "text", "fail"])
def test_a_script_ends_as_with_python(place: Place, how: str) -> None:
    place.write(HELPER, "helper.py")
    for name in ("plain", "ours"):
        (place.folder / name).mkdir()
    done = place.run(LAST_THINGS, how, "ours")
    plain = python(place, "script.py", how, "plain")
    assert (done.code, done.out) == (plain.returncode, plain.stdout), str(done)
    assert done.err.count("Traceback") == plain.stderr.count("Traceback")
    assert ("a last word" in done.err) == (how == "text")
    assert _content(place, "ours") == _content(place, "plain")
    assert len(_content(place, "ours")) == 6


def _content(place: Place, name: str) -> dict[str, str]:
    return {each.name: each.read_text() for each in (place.folder / name).iterdir()}


def test_a_kill_during_exit_handlers_repeats_them_at_the_resume(place: Place) -> None:
    done = place.run("""
        import atexit, os, signal, threading, time
        from resilient_scoop import futures

        def note(text):
            with open("ledger", "a") as file:
                file.write(text + "\\n")

        def once(name):
            if not os.path.exists(name):
                open(name, "w").close()
                time.sleep(0.3)  # what was printed is recorded
                os.kill(os.getpid(), signal.SIGKILL)

        def last():
            print("first handler", flush=True)
            note("first handler")
            once("killed")

        if __name__ == "__main__":
            atexit.register(once, "killed again")
            atexit.register(print, "second handler")
            atexit.register(last)
            futures.submit(note, "task")
            print("body")
    """)
    assert done.expect() == "body\nfirst handler\nsecond handler\n"
    lines = (place.folder / "ledger").read_text().split()
    assert lines == ["task", *["first", "handler"] * 3]
    assert place.rscoop("logs", "last").expect() == done.out
    assert place.rscoop("replay", "last").code == 0
    assert place.status()["state"] == "finished"


def test_a_worker_ends_like_a_process_of_a_pool(place: Place) -> None:
    place.write(
        """
        import atexit, os, tempfile, threading, time
        held = []

        def square(x):
            if not held:
                name = str(os.getpid())
                held.append(open("held" + name, "w"))
                held[0].write("not flushed")
                held.append(tempfile.TemporaryDirectory(dir=".", prefix="scratch"))
                atexit.register(lambda: open("exit" + name, "w").close())
                late = lambda: (time.sleep(0.3), open("thread" + name, "w").close())
                threading.Thread(target=late).start()
            return x * x
        """,
        "helper.py",
    )
    done = place.run("""
        import helper
        from resilient_scoop import futures
        if __name__ == "__main__":
            print(sum(futures.map(helper.square, range(100))))
    """)
    assert done.expect() == "328350\n"
    names = sorted(path.name for path in place.folder.iterdir())
    used = {name.removeprefix("held") for name in names if name.startswith("held")}
    assert used, names
    for pid in used:
        assert (place.folder / f"held{pid}").read_text() == "not flushed"
        assert {f"exit{pid}", f"thread{pid}"} <= set(names)
    assert not [name for name in names if name.startswith("scratch")]


def test_a_hook_for_uncaught_errors_is_called(place: Place) -> None:
    done = place.run("""
        import sys
        from resilient_scoop import futures
        def hook(kind, error, trace):
            print("hook:", kind.__name__, error, trace.tb_frame.f_code.co_name, file=sys.stderr)
        if __name__ == "__main__":
            sys.excepthook = hook
            futures.submit(abs, 1)
            raise ValueError("as planned")
    """)
    assert done.code == 1
    assert "hook: ValueError as planned <module>" in done.err
    assert "Traceback" not in done.err


def test_output_of_exit_handlers_after_a_failure_is_not_expected_again(
    place: Place,
) -> None:
    text = """
        import atexit, sys
        from resilient_scoop import futures
        atexit.register(print, "bye")
        if __name__ == "__main__":
            sys.excepthook = lambda *error: print("failed:", error[1])
            print(sum(futures.map(abs, range(4))))
            print(1 / {divisor})
            print(sum(futures.map(abs, range(5))))
    """
    before = place.run(text.format(divisor=0))
    assert before.expect(1) == "6\nfailed: division by zero\nbye\n"
    again = place.rscoop("resume", "-q", "last")
    assert again.expect(1) == "failed: division by zero\nbye\n"
    assert "the script now" not in again.err, str(again)

    place.write(text.format(divisor=4))
    done = place.rscoop("resume", "-q", "--strict", "last")
    assert done.expect() == "0.25\n10\nbye\n"
    assert "the script now" not in done.err, str(done)


@pytest.mark.parametrize(
    "text",
    [
        """
            import threading
            def late(): raise KeyError("late")
            threading._register_atexit(late)
            print("end")
        """,
        """
            import sys
            on = [True]
            def hook(event, args): on[0] = False
            sys.addaudithook(hook)
            print("end")
        """,
    ],
    ids=["exit function of threads", "audit hook without its globals"],
)
def test_errors_of_user_code_during_the_shutdown_are_shown_as_with_python(
    place: Place, text: str
) -> None:
    place.write(text)
    plain = subprocess.run(
        [sys.executable, "script.py"], cwd=place.folder, capture_output=True, text=True, check=True
    )
    done = place.rscoop("run", "-q", "-n", "1", "script.py")
    assert done.expect() == plain.stdout
    assert done.err == plain.stderr
