"""A resume in another environment: a failed import is no outcome of an item and changes no run."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import Final

import pytest

from tests.integration.runs import RSCOOP, Place, ledger

pytestmark = pytest.mark.real

SCRIPT: Final = """
import os
from resilient_scoop import futures
import helper
def work(x):
    with open("ledger", "a") as file: file.write(f"{x}\\n")
    return helper.times(x)
if __name__ == "__main__":
    print("begin")
    print(sum(futures.map(work, range(6))))
    if not os.path.exists("go"): raise SystemExit(5)
    print(sum(futures.map(work, range(6, 9))))
"""
HELPER: Final = "def times(x): return 10 * x\n"


def stopped(place: Place, *args: str, failed: int = 0) -> str:
    """Assert that a command stops with 75, without our traceback or a failed item; return its message."""
    done = place.rscoop(*args)
    done.expect(75)
    place.assert_nothing_left()
    assert "resilient_scoop/" not in done.err, done.err
    assert "rscoop resume" in done.err
    assert place.status()["failed"] == failed
    return done.err


@pytest.mark.parametrize("text", [None, "1 / 0\n"])
def test_a_resume_that_cannot_import_a_module_does_not_change_the_run(
    place: Place, text: str | None
) -> None:
    helper = place.write(HELPER, "helper.py")
    place.run(SCRIPT).expect(5)
    (place.folder / "go").touch()
    if text is None:
        helper.unlink()
    else:
        helper.write_text(text)
    assert "helper" in stopped(place, "resume", "-q", "last")
    helper.write_text(HELPER)
    assert place.rscoop("resume", "-q", "last").expect() == "210\n"
    assert sorted(map(int, ledger(place))) == list(range(9))
    assert place.rscoop("logs", "last").expect() == "begin\n150\n210\n"


def test_an_error_of_the_script_only_in_workers_stops_the_run(place: Place) -> None:
    place.write("""
        import os, resilient_scoop
        from resilient_scoop import futures
        if not resilient_scoop.IS_ORIGIN and not os.path.exists("go"): stray_name
        def work(x): return x
        if __name__ == "__main__":
            print(sum(futures.map(work, range(5))))
    """)
    errors = stopped(place, "run", "-q", "-n", "2", "script.py")
    assert errors.count("NameError") == 1
    assert re.match(r"rscoop: worker w\d cannot import the script: ", errors), errors
    assert "cannot import the script: NameError: name 'stray_name' is not defined" in errors
    assert f"({place.folder / 'script.py'}, line 4)" in errors
    (place.folder / "go").touch()
    assert place.rscoop("resume", "-q", "last").expect() == "10\n"


def test_a_script_that_later_fails_with_the_error_of_its_workers_ends_as_under_python(
    place: Place,
) -> None:
    done = place.run("""
        import glob, os, time, resilient_scoop
        def have_failed():
            logs = glob.glob(os.environ["RSCOOP_STATE_DIR"] + "/runs/*/logs/w*.log")
            return len([log for log in logs if "stray_name" in open(log).read()]) == 2
        if resilient_scoop.IS_ORIGIN:
            while not have_failed(): time.sleep(0.1)
            time.sleep(1)  # in which a run that does not wait for its script would stop
        stray_name
    """)
    assert done.code == 1
    assert "NameError: name 'stray_name' is not defined" in done.err
    assert "cannot import" not in done.err


LATE: Final = """
import importlib.util, sys
from resilient_scoop import futures
class Own:
    def __reduce__(self): return fail, ()
def fail(): import nowhere_at_all
def work(x): return x.value
if __name__ == "__main__":
    try: futures.submit(work, Own()).result()
    except ModuleNotFoundError as error: print(error)
    spec = importlib.util.spec_from_file_location("module_found_late", "late/module_found_late.py")
    late = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(late)
    print(*(futures.map(late.work, [1, 2]) if sys.argv[1] == "function"
            else futures.map(work, [late.Thing(1), late.Thing(2)])))
"""


@pytest.mark.parametrize("what", ["function", "argument"])
def test_a_module_missing_in_workers_stops_the_run(place: Place, what: str) -> None:
    place.write(LATE)
    place.write(
        """
        class Thing:
            def __init__(self, value): self.value = value
        def work(x): return x
        """,
        "late/module_found_late.py",
    )
    errors = stopped(place, "run", "-q", "-n", "2", "script.py", what, failed=1)
    # The classes of arguments may be sent with the function, which is loaded first.
    assert "cannot load the function" in errors or f"cannot load the {what}" in errors
    assert "ModuleNotFoundError: No module named 'module_found_late'" in errors
    (place.folder / "module_found_late.py").symlink_to("late/module_found_late.py")
    assert place.rscoop("resume", "-q", "last").expect() == "1 2\n"
    assert place.rscoop("logs", "last").expect() == "No module named 'nowhere_at_all'\n1 2\n"


def test_a_script_that_fails_during_its_replay_changes_nothing(place: Place) -> None:
    place.write(HELPER, "helper.py")
    path = place.write(SCRIPT)
    place.rscoop("run", "-q", "-n", "2", "script.py").expect(5)
    (place.folder / "go").touch()
    line = "raise OSError('no licence')"
    path.write_text(SCRIPT.replace("    print(sum", f"    {line}\n    print(sum", 1))
    errors = stopped(place, "resume", "-q", "last")
    assert "no licence" in errors
    assert "after 0 of the 1 calls that it had made before" in errors
    path.write_text(SCRIPT)
    assert place.rscoop("resume", "-q", "last").expect() == "210\n"


SURROUNDED: Final = """
import os, resource, sys
from resilient_scoop import futures
import away
def seen(_):
    umask = os.umask(0)
    os.umask(umask)
    names = ("MINE", "GONE", "NEW", "TERM", "API_TOKEN", "URL")
    return os.getcwd(), umask, resource.getrlimit(resource.RLIMIT_NOFILE)[0], *map(os.environ.get, names)
if __name__ == "__main__":
    if not os.path.exists("go"):
        sum(futures.map(abs, [1]))
        raise SystemExit(5)
    print(seen(0), *futures.map(seen, [1]), sep="\\n")
"""


def test_a_resume_has_the_environment_of_its_run(place: Place) -> None:
    place.write(SURROUNDED, "work/script.py")
    place.write("", "lib/away.py")
    work = place.folder / "work"
    own = place.env().get("PYTHONPATH", "")
    there = place.env() | {
        "MINE": "run's", "GONE": "x" * 50, "TERM": "vt100", "API_TOKEN": "secret-1",
        "URL": "ftp://me:secret-2@host", "PYTHONPATH": f"../lib:{own}",
    }  # fmt: skip
    shell = ["bash", "-c", 'umask 027; ulimit -S -n 333; exec "$@"', "-", *RSCOOP]
    subprocess.run(
        [*shell, "run", "-q", "-n", "1", "script.py"], cwd=work, env=there, check=False, timeout=40
    )
    (run,) = place.runs()
    assert "secret-" not in (run / "run.json").read_text()

    (work / "go").touch()
    place.environ |= {"TERM": "dumb", "NEW": "n", "MINE": "mine", "API_TOKEN": "new", "PAGER": "x"}
    done = place.rscoop("resume", "-q", "last", "--env", "NEW=given")
    seen = (str(work), 0o027, 333, "run's", "x" * 50, "given", "dumb", "new", None)
    assert done.expect() == f"{seen}\n{seen}\n"
    assert "MINE=\"run's\" (here 'mine')" in done.err
    assert "GONE='xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx…' (here not set)" in done.err
    assert "URL was set when the run began" in done.err
    assert "umask is used: 027 (here 022)" in done.err
    assert "nofile 333 (here" in done.err
    assert "TERM" not in done.err

    replayed = place.rscoop("replay", "last", "--env", "NEW=given")
    assert "clean" in replayed.expect()
    assert "MINE=\"run's\" (here 'mine')" in replayed.err
    finished = place.rscoop("resume", "last")
    assert finished.expect() == ""
    assert finished.err.count("\n") == 1, finished.err  # nothing starts, so nothing is reported


HASHED: Final = """
import os
from resilient_scoop import futures
def hashed(_): return hash("a word")
if __name__ == "__main__":
    print(hashed(0), *futures.map(hashed, [1, 2]))
    if not os.path.exists("go"):
        raise SystemExit(5)
"""


def hashes(place: Place, seed: str) -> str:
    """Return the numbers that `HASHED` prints under Python itself."""
    words = [sys.executable, "-c", "print(*[hash('a word')] * 3)"]
    environ = place.env() | {"PYTHONHASHSEED": seed}
    return subprocess.run(
        words, env=environ, check=True, capture_output=True, text=True, timeout=40
    ).stdout


@pytest.mark.parametrize("seed", ["0", "7"])
def test_all_processes_use_the_hash_seed_that_the_user_has_set(place: Place, seed: str) -> None:
    place.environ["PYTHONHASHSEED"] = seed
    assert place.run(HASHED).expect(5) == hashes(place, seed)
    assert f'"PYTHONHASHSEED": "{seed}"' in (place.runs()[0] / "run.json").read_text()
    (place.folder / "go").touch()
    place.environ["PYTHONHASHSEED"] = "8"
    done = place.rscoop("resume", "-q", "last")
    assert done.expect() == ""  # the same numbers as before
    assert f"PYTHONHASHSEED='{seed}' (here '8')" in done.err


@pytest.mark.parametrize("seed", ["random", None])
def test_a_run_draws_a_hash_seed_if_the_user_sets_none(place: Place, seed: str | None) -> None:
    environ = {k: v for k, v in place.env().items() if k != "PYTHONHASHSEED"}
    if seed is not None:
        environ["PYTHONHASHSEED"] = seed
    place.write(HASHED)
    first = place.rscoop("run", "-q", "-n", "1", "script.py", env=environ)
    assert len(set(first.expect(5).split())) == 1
    (place.folder / "go").touch()
    assert place.rscoop("resume", "-q", "last", env=environ).expect() == ""


def test_a_worker_that_alone_cannot_import_is_restarted(place: Place) -> None:
    place.write("""
        import os, resilient_scoop, time
        from resilient_scoop import futures
        def claims(name):
            try: os.close(os.open(name, os.O_CREAT | os.O_EXCL))
            except FileExistsError: return False
            return True
        if not resilient_scoop.IS_ORIGIN and (claims("first") or claims("second")):
            raise OSError("the file system is away")
        def work(x): time.sleep(0.05); return os.getpid()
        if __name__ == "__main__":
            while len(set(futures.map(work, range(40)))) < 2: pass
            print("both")
    """)
    done = place.rscoop("run", "-q", "-n", "2", "script.py")
    if done.code == 75:  # both tried before one could
        done = place.rscoop("resume", "-q", "last")
    assert done.expect() == "both\n"
    assert "resilient_scoop/" not in done.err, done.err
    place.assert_nothing_left()


def test_errors_of_a_missing_guard_are_not_kept_after_the_guard_is_added(place: Place) -> None:
    text = """
from resilient_scoop import futures
def work(x): return x + 1
GUARD
    print(list(futures.map(work, range(3))))
"""
    path = place.write(text.replace("GUARD", "if True:"))
    assert 'under `if __name__ == "__main__":`' in stopped(
        place, "run", "-q", "-n", "2", "script.py"
    )
    path.write_text(text.replace("GUARD", 'if __name__ == "__main__":'))
    assert place.rscoop("resume", "-q", "last").expect() == "[1, 2, 3]\n"
