"""Each way to start a script works as with `python`, for the script and its workers."""

from __future__ import annotations

import os
import py_compile
import subprocess
import sys
import zipapp
from pathlib import Path

import pytest

from tests.integration.runs import RSCOOP, Done, Place

pytestmark = pytest.mark.real

PROGRAM = """
import os, sys
from resilient_scoop import futures
import tools
def seen(x):
    return tools.work(x), sys.argv, os.environ.get("PYTHONPATH")
if __name__ == "__main__":
    module = __spec__ and __spec__.name, __package__, __cached__
    print(sys.argv, __file__, sys.path[0], module, os.environ.get("PYTHONPATH"))
    print(*futures.map(seen, [1, 2]))
"""
TOOLS = "def work(x): return x + 1\n"


def same(place: Place, *words: str, flags: tuple[str, ...] = (), shell: str = '"$@"') -> None:
    """Assert that a program prints the same under `rscoop run` as under `python`."""
    printed = []
    for command in (
        [sys.executable, "-W", "ignore", *flags],
        [sys.executable, *flags, *RSCOOP[1:], "run", "-q", "-n", "2"],
    ):
        done = subprocess.run(
            ["bash", "-c", shell, "-", *command, *words], cwd=place.folder, env=place.env(),
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=40, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        printed.append(done.stdout)
    assert printed[0]
    assert printed[0] == printed[1]
    place.assert_nothing_left()


@pytest.fixture
def program(place: Place) -> Place:
    """A script and its own module, in a folder that is not the working directory."""
    place.write(PROGRAM, "real/script.py")
    place.write(TOOLS, "real/tools.py")
    (place.folder / "bin").mkdir()
    (place.folder / "bin" / "tool").symlink_to("../real/script.py")
    (place.folder / "link").symlink_to("real")
    (place.folder / "link" / ".." / "real" / "__main__.py").symlink_to("script.py")
    return place


@pytest.mark.parametrize(
    "path", ["bin/tool", "./bin/../real/script.py", "link/../bin/tool", "link/script.py", "link"]
)
def test_a_script_behind_symbolic_links_finds_its_own_modules(program: Place, path: str) -> None:
    same(program, path, "an argument")


def test_an_archive_and_a_compiled_script_run(program: Place) -> None:
    zipapp.create_archive(program.folder / "real", program.folder / "app.pyz")
    same(program, "app.pyz")
    py_compile.compile(
        str(program.folder / "real" / "script.py"), str(program.folder / "real" / "compiled.pyc")
    )
    same(program, "real/compiled.pyc")


@pytest.mark.parametrize("path", ["real", ":real", ".:./real", "real:"])
def test_entries_of_pythonpath_are_relative_to_the_working_directory(
    program: Place, path: str
) -> None:
    (program.folder / "real" / "script.py").rename(program.folder / "script.py")
    # The package itself may be found through this variable.
    own = program.environ.get("PYTHONPATH") or program.env().get("PYTHONPATH", "")
    program.environ["PYTHONPATH"] = f"{path}:{own}" if own else path
    same(program, "script.py")


def test_a_safe_path_excludes_the_folder_of_the_script(program: Place) -> None:
    own = program.env().get("PYTHONPATH", "")
    program.environ |= {"PYTHONSAFEPATH": "1", "PYTHONPATH": f"real:{own}" if own else "real"}
    same(program, "real/script.py")
    same(program, "real/script.py", flags=("-P",))


@pytest.mark.parametrize(
    "shell",
    [
        '"$@" <(cat bin/tool)',
        '"$@" /dev/stdin < bin/tool',
        'cat bin/tool | "$@" /dev/stdin',
        'cat bin/tool | "$@" -',
        '"$@" - < bin/tool',
    ],
)
def test_a_script_that_can_be_read_only_once_is_stored(program: Place, shell: str) -> None:
    own = program.env().get("PYTHONPATH", "")
    program.environ["PYTHONPATH"] = f"real:{own}" if own else "real"
    same(program, shell=shell)


def test_a_stored_script_is_resumed(place: Place) -> None:
    script = """
import sys
from resilient_scoop import futures
def double(x): return 2 * x
if __name__ == "__main__":
    print(sum(futures.map(double, range(10))))
    if not __import__("os").path.exists("go"): raise SystemExit(5)
"""
    place.rscoop("run", "-q", "-n", "1", "/dev/stdin", stdin=script).expect(5)
    (place.folder / "go").touch()
    assert place.rscoop("resume", "-q", "last").expect() == ""
    forked = place.rscoop("fork", "last").expect().strip()
    assert place.rscoop("resume", "-q", forked).expect() == "90\n"


def test_options_of_the_interpreter_apply_to_script_and_workers(place: Place) -> None:
    place.write("""
        import sys
        from resilient_scoop import futures
        def flags(_):
            assert not "-O"
            return sys.flags.optimize, sys.flags.dev_mode, sys._xoptions, sys.warnoptions[-1:]
        if __name__ == "__main__":
            print(flags(0), *futures.map(flags, [1, 2]))
    """)
    given = ("-O", "-X", "dev", "-X", "name=value", "-W", "error::UserWarning")
    same(place, "script.py", flags=given)


def test_variables_of_the_interpreter_do_not_end_our_processes(place: Place) -> None:
    place.write(
        """
        import sys, tempfile
        from resilient_scoop import checkpoint, futures
        def opened(x):
            try: open("script.py").close()
            except EncodingWarning: return x, sys.flags.dev_mode
        if __name__ == "__main__":
            with checkpoint.durable(n=0) as s:
                s.n += len(list(futures.map(opened, [1, 2])))
                s.commit()
            print(s.n, *futures.map(opened, [1, 2]))
        """
    )
    place.environ = {
        "PYTHONINSPECT": "1", "PYTHONWARNINGS": "error::EncodingWarning", "PYTHONWARNDEFAULTENCODING": "1",
        "PYTHONDEVMODE": "1",
    }  # fmt: skip
    done = place.rscoop("run", "-q", "-n", "2", "script.py", timeout_s=60)
    assert done == Done(0, "2 (1, True) (2, True)\n", "")
    place.assert_nothing_left()


@pytest.mark.parametrize(
    ("name", "says", "code"),
    [
        ("notes.ipynb", "jupyter nbconvert --to script notes.ipynb", 2),
        ("ls", "to run the command of that name: rscoop run /", 2),
        ("old.pyc", "another version of Python", 1),
        ("folder", "can't find '__main__' module in", 1),
    ],
)
def test_a_file_that_cannot_be_run_is_refused_with_advice(
    place: Place, name: str, says: str, code: int
) -> None:
    (place.folder / "folder").mkdir()
    for each in ("notes.ipynb", "old.pyc"):
        (place.folder / each).write_bytes(b"{}")
    done = place.rscoop("run", name)
    done.expect(code)
    assert says in done.err
    assert done.err.count("\n") == 1
    assert place.runs() == []


SUM = """
import signal, sys
from resilient_scoop import futures
def double(x): return 2 * x
if __name__ == "__main__":
    total = sum(futures.map(double, range(5)))
    print(total, file=sys.stdout)
"""


def shell(place: Place, line: str, **environ: str | None) -> subprocess.CompletedProcess[bytes]:
    """Run a line of bash in which `$RSCOOP` is the command; None removes a variable."""
    given = {**place.env(), "RSCOOP": " ".join(RSCOOP), **environ}
    env = {name: value for name, value in given.items() if value is not None}
    done = subprocess.run(
        ["bash", "-c", line], cwd=place.folder, env=env, capture_output=True, timeout=60,
        check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    place.assert_nothing_left()
    assert b"Traceback" not in done.stderr, done.stderr
    return done


def test_nothing_is_written_to_closed_standard_streams(place: Place) -> None:
    place.write(SUM)
    line = "$RSCOOP run -n 1 script.py <&- >&- 2>&-; echo $?; $RSCOOP run -q -n 1 script.py >&-; echo $?"
    assert shell(place, line).stdout == b"0\n0\n"
    assert place.rscoop("logs", "last").expect() == "20\n"


def test_an_ignored_hangup_stays_ignored(place: Place) -> None:
    place.write("""
        import os, signal, subprocess
        from resilient_scoop import futures
        def state(_):
            inner = "import signal; print(int(signal.getsignal(signal.SIGHUP)))"
            return subprocess.run(["python3", "-c", inner], capture_output=True).stdout
        if __name__ == "__main__":
            launcher = int(open("pid").read())
            os.kill(launcher, signal.SIGHUP)
            os.kill(os.getpid(), signal.SIGHUP)
            print(state(0), *futures.map(state, [1]), signal.getsignal(signal.SIGHUP) == signal.SIG_IGN)
    """)
    done = shell(place, "nohup $RSCOOP run -q -n 1 script.py & echo $! > pid; wait $!")
    assert done.stdout == b"b'1\\n' b'1\\n' True\n"
    assert done.returncode == 0


def test_names_that_are_not_utf_8_can_be_used_everywhere(place: Place) -> None:
    folder = os.fsencode(place.folder) + b"/n\xff"
    Path(os.fsdecode(folder)).mkdir()
    Path(os.fsdecode(folder + b"/s\xfe.py")).write_text(
        SUM.replace("total, file=sys.stdout", "total, ascii(sys.argv), ascii(__file__)[-8:]")
        + "    if sys.argv[1:]: futures.submit(double, None).result()\n"
    )
    name = "cd $(printf 'n\\377'); $RSCOOP run -q -n 1 $(printf 's\\376.py') $(printf '\\375')"
    done = subprocess.run(
        ["bash", "-c", name], cwd=place.folder, capture_output=True, timeout=60, check=False,
        env=place.env() | {"RSCOOP": " ".join(RSCOOP), "RSCOOP_STATE_DIR": os.fsdecode(folder)},
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert done.stdout == b"20 ['s\\udcfe.py', '\\udcfd'] dcfe.py'\n"
    assert b"TypeError: unsupported operand" in done.stderr
    place.state = Path(os.fsdecode(folder))
    for words in (("runs",), ("runs", "--json"), ("status", "--json"), ("logs", "last")):
        place.rscoop(*words).expect()
    resumed = place.rscoop("resume", "-q", "last")
    assert "TypeError: unsupported operand" in resumed.err


def test_a_dumb_terminal_gets_plain_lines_only(place: Place) -> None:
    place.write(SUM)
    command = " ".join([*RSCOOP, "run", "-n", "1", "script.py"])
    done = shell(place, f"script -qec '{command}' /dev/null", TERM="dumb")
    assert b"\x1b" not in done.stdout
    assert b"20\r\n" in done.stdout


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes users that do not exist")
def test_a_user_without_an_entry_or_a_home_gets_advice(place: Place) -> None:
    place.write(SUM)
    place.folder.chmod(0o777)
    right = "-all,+dac_read_search"  # the interpreter may be in root's home
    be = f"setpriv --clear-groups --inh-caps={right} --ambient-caps={right}"
    one, two = (f"{be} --reuid={uid} --regid={uid} $RSCOOP" for uid in (54321, 54322))
    homeless = shell(place, f"{one} run script.py", HOME=None, RSCOOP_STATE_DIR=None)
    assert homeless.returncode == 2
    assert b"no home folder (HOME is not set); choose one with --state-dir" in homeless.stderr

    place.state.mkdir()
    place.state.chmod(0o1777)
    line = f"{one} run -q -n 1 script.py; {two} run script.py"
    done = shell(place, line, HOME=None)
    assert (done.returncode, done.stdout) == (2, b"20\n")
    assert (
        b"runs belongs to user 54321: ask its owner, or choose a folder of your own" in done.stderr
    )

    # A folder that root has opened to all users, like /tmp, works for all; each user sees only
    # their own runs.
    runs = place.state / "runs"
    os.chown(runs, 0, 0)
    runs.chmod(0o1777)
    done = shell(place, f"{two} run -q -n 1 script.py; {two} runs; {one} status last", HOME=None)
    assert done.stdout.count(b"script.py") == 2
    assert done.stderr == b""


def test_a_missing_working_directory_is_named(place: Place) -> None:
    place.write(SUM)
    line = "mkdir gone && cd gone && rmdir ../gone && $RSCOOP run ../script.py"
    done = shell(place, line)
    assert done.returncode == 2
    assert done.stderr.startswith(b"rscoop: the working directory has been deleted")


def test_keywords_that_a_map_does_not_know_are_named_once(place: Place) -> None:
    done = place.run("""
        from resilient_scoop import futures
        def add(a, b=1): return a + b
        if __name__ == "__main__":
            for _ in range(2):
                print(*futures.map(add, [1, 2], b=5), *futures.map_as_completed(add, [3], b=5, c=2))
    """)
    assert done.expect() == "2 3 4\n2 3 4\n"
    assert done.err.count("futures.map ignores b=") == 1
    assert done.err.count("futures.map ignores c=") == 1
    assert "script.py:6: RuntimeWarning" in done.err


def test_a_message_tells_notebook_users_how_to_run_in_parallel(place: Place) -> None:
    place.write("""
        import sys, types
        sys.modules["ipykernel"] = types.ModuleType("ipykernel")  # as in a kernel
        from resilient_scoop import futures
        print(*futures.map(abs, [-1]))
    """)
    done = shell(place, f"{sys.executable} script.py")
    assert done.stdout == b"1\n"
    assert b"in a notebook; to run them in parallel" in done.stderr
    assert b'session = Session(run="NAME")' in done.stderr


def test_a_script_that_replaces_its_path_can_still_use_all_of_rscoop(place: Place) -> None:
    done = place.run("""
        import sys
        from resilient_scoop import futures
        def failing(x):
            sys.path[:] = ["nothing"]
            return x // 0
        def importing(name):
            try: __import__(name)
            except ImportError as error: return str(error)
        if __name__ == "__main__":
            sys.path[:] = ["nothing/here"]
            for name in ("pickletools", "tblib.decorators"): print(importing(name))
            try: futures.submit(failing, 1).result()
            except ZeroDivisionError as error: print(error)
            print(*futures.map(lambda x: x + len(sys.path), [1, 2]))
            print(*futures.map(importing, ["pickletools"]))
    """)
    assert done.expect().splitlines() == [
        "No module named 'pickletools'", "No module named 'tblib'",
        "integer division or modulo by zero", "2 3", "No module named 'pickletools'",
    ], done.err  # fmt: skip
    assert "Error" not in done.err
