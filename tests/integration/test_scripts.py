"""Scripts as users write them behave under `rscoop run` as under `python`."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import pytest

from tests.integration.runs import Place

pytestmark = pytest.mark.real


def test_a_script_without_a_guard_gets_advice_and_starts_no_second_run(place: Place) -> None:
    began = time.monotonic()
    done = place.run("""
        from resilient_scoop import futures
        with open("started", "a") as file: file.write(__name__ + "\\n")
        def square(x): return x * x
        print(list(futures.map(square, range(10))))
    """)
    done.expect(75)
    assert time.monotonic() - began < 10
    assert done.err.count('under `if __name__ == "__main__":`') == 1, done.err
    assert "Traceback" not in done.err
    path = place.folder / "script.py"
    assert f"rscoop: {path} calls futures while it is being imported" in done.err
    assert len((place.folder / "started").read_text().splitlines()) <= 3


def test_a_module_of_a_package_finds_its_siblings(place: Place) -> None:
    place.write("", "pkg/__init__.py")
    place.write("from . import deep\ndef work(x): return deep.NUMBER + x\n", "pkg/sibling.py")
    place.write("NUMBER = 40\nclass Thing:\n    pass\n", "pkg/deep.py")
    place.write(
        """
        import sys
        from resilient_scoop import futures
        from .sibling import work
        from .deep import Thing
        class Own: pass
        def make(_): return Thing(), Own()
        if __name__ == "__main__":
            print(__package__, list(futures.map(work, [1, 2])), sys.argv[1:])
            thing, own = futures.submit(make, 0).result()
            print(type(thing) is Thing, type(own) is Own)
        """,
        "pkg/mod.py",
    )
    done = place.rscoop("run", "-q", "-n", "2", "-m", "pkg.mod", "-n", "7")
    assert done.expect() == "pkg [41, 42] ['-n', '7']\nTrue True\n"
    place.assert_nothing_left()


def test_a_folder_with_a_main_and_a_sibling_module_run_as_python_runs_them(place: Place) -> None:
    place.write("def work(x):\n    return x + 1\n", "app/tools.py")
    place.write(
        """
        from resilient_scoop import futures
        import tools
        if __name__ == "__main__":
            print(list(futures.map(tools.work, [1, 2])))
        """,
        "app/__main__.py",
    )
    done = place.rscoop("run", "-q", "-n", "2", "app")
    assert done.expect() == "[2, 3]\n"


def test_arguments_that_look_like_ours_are_passed_to_the_script(place: Place) -> None:
    args = ["-n", "9", "--seed", "x", "--help", "--", "-q", "a b", "ü", ""]
    done = place.run("import sys, json\nprint(json.dumps(sys.argv))\n", *args)
    assert json.loads(done.expect()) == ["script.py", *args]


def test_python_dash_m_scoop_works_like_the_command_of_scoop(place: Place) -> None:
    place.write("""
        import sys
        from resilient_scoop import futures
        import resilient_scoop
        if __name__ == "__main__":
            print(list(futures.map(abs, [-1])), sys.argv[1:], resilient_scoop.SIZE)
    """)
    done = place.rscoop("-n", "2", "script.py", "--flag", "7")
    assert done.expect() == "[1] ['--flag', '7'] 2\n"


def test_the_script_reads_standard_input(place: Place) -> None:
    text = """
        import sys
        from resilient_scoop import futures
        def double(x): return 2 * x
        if __name__ == "__main__":
            first = input()
            rest = sys.stdin.read()
            print(first, list(futures.map(double, map(int, rest.split()))))
    """
    assert place.run(text, stdin="name\n1 2\n3\n").expect() == "name [2, 4, 6]\n"


def test_tasks_read_an_empty_standard_input(place: Place) -> None:
    done = place.run(
        """
        import sys
        from resilient_scoop import futures
        def read(_): return sys.stdin.read()
        if __name__ == "__main__":
            print(list(futures.map(read, [1, 2])), sys.stdin.read())
        """,
        stdin="mine",
    )
    assert done.expect() == "['', ''] mine\n"


def test_the_exit_code_is_that_of_the_script(place: Place) -> None:
    done = place.run("import sys\nprint('before')\nsys.exit(3)\n")
    assert done.expect(3) == "before\n"
    assert "Traceback" not in done.err
    assert place.status()["state"] == "failed"


def test_an_immediate_exit_keeps_its_status_and_the_flushed_output(place: Place) -> None:
    text = """
        import os, sys
        from resilient_scoop import futures
        if __name__ == "__main__":
            print(sum(futures.map(abs, range(5))), flush=True)
            if len(sys.argv) > 1: os._exit(int(sys.argv[1]))
    """
    assert place.run(text, "0").expect() == "10\n"
    assert place.run(text, "5").expect(5) == "10\n"
    assert place.rscoop("resume", "-q", "last").expect(5) == ""


def test_an_exit_with_a_text_prints_it_and_has_status_one(place: Place) -> None:
    done = place.run("import sys\nsys.exit('no such thing: ü')\n")
    done.expect(1)
    assert "no such thing: ü" in done.err


def test_an_exit_without_a_value_has_status_zero(place: Place) -> None:
    assert place.run("import sys\nprint(1)\nsys.exit()\n").expect(0) == "1\n"


BROKEN = """
import sys
from resilient_scoop import futures
def double(x):
    with open("ledger", "a") as file: file.write(f"{x}\\n")
    return 2 * x
def inner(values):
    raise ValueError(f"sum {sum(values)}")
if __name__ == "__main__":
    print("start")
    values = list(futures.map(double, range(8)))
    inner(values)
    print("end")
"""


def test_an_uncaught_error_is_printed_as_python_prints_it(place: Place) -> None:
    done = place.run(BROKEN)
    assert done.expect(1) == "start\n"
    # Python itself prints the same, except the warning that futures run serially.
    plain = subprocess.run(
        [sys.executable, "-W", "ignore", str(place.folder / "script.py")],
        capture_output=True, text=True, check=False, cwd=place.folder, timeout=30,
    )  # fmt: skip
    assert plain.returncode == 1
    assert plain.stderr in done.err
    assert place.status()["state"] == "failed"


def test_a_corrected_script_continues_at_the_point_of_its_failure(place: Place) -> None:
    place.run(BROKEN).expect(1)
    place.write(BROKEN.replace('raise ValueError(f"sum {sum(values)}")', "print(sum(values))"))
    resumed = place.rscoop("resume", "last", "-q")
    assert resumed.expect() == "56\nend\n"
    assert len((place.folder / "ledger").read_text().splitlines()) == 8
    logged = place.rscoop("logs", "last")
    assert logged.expect() == "start\n56\nend\n"
    place.assert_nothing_left()


def test_failed_items_are_kept_by_resume_and_computed_again_on_request(place: Place) -> None:
    text = """
        import os
        from resilient_scoop import futures
        def work(x):
            with open("ledger", "a") as file: file.write(f"{x}\\n")
            if x == 3 and not os.path.exists("mended"):
                raise OSError(f"no file for {x}")
            return x
        if __name__ == "__main__":
            print(sum(futures.map(work, range(6))))
    """
    first = place.run(text)
    first.expect(1)
    assert "OSError: no file for 3" in first.err
    assert "rscoop resume" in first.err
    (place.folder / "mended").touch()
    again = place.rscoop("resume", "-q", "last")
    again.expect(1)
    assert "OSError: no file for 3" in again.err
    retried = place.rscoop("resume", "-q", "--retry-failed", "last")
    assert retried.expect() == "15\n"
    ledger = (place.folder / "ledger").read_text().split()
    assert sorted(ledger) == sorted(["0", "1", "2", "3", "3", "4", "5"])


def test_the_traceback_of_a_task_names_the_lines_of_the_task(place: Place) -> None:
    done = place.run("""
        from resilient_scoop import futures
        def deep(x): return 1 / x
        def work(x): return deep(x)
        if __name__ == "__main__":
            futures.submit(work, 0).result()
    """)
    done.expect(1)
    assert "ZeroDivisionError: division by zero" in done.err
    assert "in deep" in done.err
    assert "in work" in done.err
    assert "in _item" not in done.err, done.err
    assert "futures.submit(work, 0).result()" in done.err


def test_the_output_is_what_the_script_wrote_byte_for_byte(place: Place) -> None:
    done = place.run("""
        import sys, os, subprocess
        if __name__ == "__main__":
            print("ünïcode 日本 🎉", end="|")
            sys.stdout.write("x" * 1_000_000 + "\\n")
            sys.stdout.buffer.write(b"raw\\n")
            print("to stderr", file=sys.stderr)
            print("no newline", end="")
    """)
    assert done.expect() == "ünïcode 日本 🎉|" + "x" * 1_000_000 + "\nraw\nno newline"
    assert "to stderr" in done.err


def test_output_of_child_processes_and_c_code_is_shown(place: Place) -> None:
    done = place.run("""
        import os, subprocess
        if __name__ == "__main__":
            subprocess.run(["echo", "from a child"], check=True)
            os.write(1, b"from C\\n")
            print("from python")
    """)
    assert sorted(done.expect().splitlines()) == ["from C", "from a child", "from python"]


def test_output_of_tasks_is_in_the_logs_of_their_workers(place: Place) -> None:
    done = place.run("""
        import resilient_scoop, sys
        from resilient_scoop import futures
        def talk(x):
            print("task", x)
            print("error", x, file=sys.stderr)
            return resilient_scoop.WORKER
        if __name__ == "__main__":
            print(futures.submit(talk, 7).result())
    """)
    worker = done.expect().strip()
    assert worker in ("w1", "w2")
    log = place.rscoop("logs", "last", "--worker", worker).expect()
    assert "task 7" in log
    assert "error 7" in log
    assert "task 7" not in done.err
