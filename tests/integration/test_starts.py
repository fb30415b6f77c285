"""Ways to start a script: each means what it means to `python`, for the script and its workers."""

from __future__ import annotations

import py_compile
import subprocess
import sys
import zipapp

import pytest

from tests.integration.runs import RSCOOP, Place

pytestmark = pytest.mark.real

PROGRAM = """
import os, sys
from resilient_scoop import futures
import tools
def seen(x):
    return tools.work(x), sys.argv, os.environ.get("PYTHONPATH")
if __name__ == "__main__":
    module = __spec__ and __spec__.name, __package__, type(__loader__).__name__, __cached__
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
    """A script beside its own module, in a folder that is not the working directory."""
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


def test_a_safe_path_leaves_the_scripts_folder_out(program: Place) -> None:
    own = program.env().get("PYTHONPATH", "")
    program.environ |= {"PYTHONSAFEPATH": "1", "PYTHONPATH": f"real:{own}" if own else "real"}
    same(program, "real/script.py")
    same(program, "real/script.py", flags=("-P",))


@pytest.mark.parametrize(
    "shell",
    ['"$@" <(cat bin/tool)', '"$@" /dev/stdin < bin/tool', 'cat bin/tool | "$@" /dev/stdin'],
)
def test_a_script_that_can_be_read_only_once_is_kept(program: Place, shell: str) -> None:
    own = program.env().get("PYTHONPATH", "")
    program.environ["PYTHONPATH"] = f"real:{own}" if own else "real"
    same(program, shell=shell)


def test_a_kept_script_is_resumed(place: Place) -> None:
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


def test_options_of_the_interpreter_reach_script_and_workers(place: Place) -> None:
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


@pytest.mark.parametrize(
    ("name", "says", "code"),
    [
        ("notes.ipynb", "jupyter nbconvert --to script notes.ipynb", 2),
        ("ls", "to run the command of that name: rscoop run /", 2),
        ("-", "rscoop run /dev/stdin", 2),
        ("old.pyc", "another version of Python", 1),
        ("folder", "can't find '__main__' module in", 1),
    ],
)
def test_what_cannot_be_run_is_told_what_to_do(
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
