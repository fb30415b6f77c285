"""Unchanged scripts of SCOOP in real runs."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.integration.killed import killed_at, resumed
from tests.integration.runs import Done, Place, ledger

pytestmark = pytest.mark.real

SCRIPT = """
    import operator, pickle, time
    import scoop
    from scoop import futures, logger, shared
    from scoop._types import CallbackType, TimeoutError as Late
    from scoop.fallbacks import NotStartedProperly
    import scoop.futures
    BY_NAME = pickle.dumps(scoop.futures.map)
    def square(x): return x * x
    def power(x, by=2, *, plus=0): return x ** by + plus
    def deep(n):
        return 1 if n < 2 else sum(scoop.futures.map(deep, [n - 1, n - 2]))
    def scaled(x): return x * shared.getConst("factor")
    def applied(x): return shared.getConst("function")(x)
    def is_missing(name): return shared.getConst(name) is None
    def island(mapper, n): return list(pickle.loads(mapper)(square, range(n)))
    if __name__ == "__main__":
        logger.warning("begins")
        print(scoop.IS_ORIGIN, scoop.IS_RUNNING, scoop.SIZE, scoop.worker, scoop.DEBUG)
        print(scoop.MAIN_MODULE.rpartition("/")[2], scoop.CONFIGURATION["headless"])
        print(list(futures.map(square, range(6))), futures.submit(power, 3, by=3, plus=1).result())
        print(futures.submit(deep, 7).result(), futures.submit(island, BY_NAME, 4).result())
        shared.setConst(factor=7, function=lambda v: v + 100)
        print(list(futures.map(scaled, range(4))), list(futures.map(applied, range(3))))
        print(futures.submit(is_missing, "nothing").result(), shared.getConst("factor"))
        print(futures.mapReduce(square, operator.add, range(50)))
        print(futures.mapScan(square, operator.add, range(5)))
        seen = []
        future = futures.submit(square, 9)
        future.add_done_callback(lambda done: seen.append(done.result()), CallbackType.universal)
        print(future.result(), seen)
        done, rest = futures.wait([futures.submit(square, n) for n in range(4)], timeout=30)
        print(len(done), len(rest), sorted(futures.map_as_completed(square, range(5))))
        try:
            futures.submit(time.sleep, 3).result(timeout=0.05)
        except Late:
            print("late")
"""
PRINTED = """\
True True 2 origin False
script.py False
[0, 1, 4, 9, 16, 25] 28
21 [0, 1, 4, 9]
[0, 7, 14, 21] [100, 101, 102]
True 7
40425
[0, 1, 5, 14, 30]
81 [81]
4 0 [0, 1, 4, 9, 16]
late
"""

FAKE = {
    "__init__.py": "IS_RUNNING = 'theirs'\n",
    "futures.py": "map = map\n",
}


def installed(place: Place) -> str:
    """Install a package of SCOOP's shape, outside the script's folder; return its path."""
    folder = place.folder / "site" / "scoop"
    folder.mkdir(parents=True)
    for name, text in FAKE.items():
        (folder / name).write_text(text)
    place.environ["PYTHONPATH"] = str(folder.parent)
    return str(folder)


def test_a_script_of_scoop_runs_unchanged_and_reports_once_what_it_imports(place: Place) -> None:
    done = place.run(SCRIPT)
    assert done.expect() == PRINTED
    assert done.err.count("it gets resilient_scoop, which has the same interface") == 1


def test_the_command_line_of_scoop_runs_a_script(place: Place) -> None:
    path = place.write(SCRIPT)
    command = [sys.executable, "-m", "resilient_scoop", "-n", "2", "-q", "--debug", "-b", "2"]
    ended = subprocess.run(
        [*command, path.name], cwd=place.folder, env=place.env(), capture_output=True, text=True,
        timeout=60, check=False,
    )  # fmt: skip
    assert Done(ended.returncode, ended.stdout, ended.stderr).expect() == PRINTED


KILLED = """
    import os, time
    from scoop import futures, shared
    def work(x):
        with open("ledger", "a") as file:
            file.write(f"{x}\\n")
        while x == 27 and not os.path.exists("go"):
            time.sleep(0.02)
        return x * shared.getConst("factor")
    def deep(n): return sum(futures.map(work, range(20, 20 + n)))
    if __name__ == "__main__":
        shared.setConst(factor=3)
        print(list(futures.map(work, range(5))))
        waiting = futures.submit(deep, 8)
        futures.submit(open, "seen", "w")
        print(waiting.result(), futures.submit(work, x=9).result())
"""


def test_a_script_of_scoop_that_is_killed_resumes(place: Place) -> None:
    killed_at(place, KILLED, "seen")
    (place.folder / "go").touch()
    assert resumed(place).expect().splitlines()[-1] == "564 27"
    assert place.rscoop("logs", "last").expect() == "[0, 3, 6, 9, 12]\n564 27\n"
    # Results that the script got were journaled; the last nested calls may not have been.
    assert [ledger(place).count(str(x)) for x in (0, 1, 2, 3, 4)] == [1, 1, 1, 1, 1]


def test_an_installed_scoop_is_imported_and_the_user_is_told(place: Place) -> None:
    folder = installed(place)
    script = (
        "import scoop\nfrom scoop import futures\nprint(scoop.IS_RUNNING, futures.map is map)\n"
    )
    done = place.run(script)
    assert done.expect() == "theirs True\n"
    assert f"the SCOOP that is installed at {folder}" in done.err
    assert done.err.count("RSCOOP_AS_SCOOP=1") == 1


USES_OURS = """
    from scoop import futures
    import scoop
    def square(x): return x * x
    if __name__ == "__main__":
        print(scoop.IS_RUNNING, sum(futures.map(square, range(10))))
"""
ASKS = "from resilient_scoop.compat import install_as_scoop\ninstall_as_scoop()\n"


def test_our_scoop_module_replaces_an_installed_scoop_if_the_user_asks_for_it(place: Place) -> None:
    installed(place)
    place.environ["RSCOOP_AS_SCOOP"] = "1"
    done = place.run(USES_OURS)
    assert (done.expect(), done.err) == ("True 285\n", "")


def test_a_script_can_select_our_scoop_module_in_its_first_line(place: Place) -> None:
    installed(place)
    text = ASKS + USES_OURS.replace("\n    ", "\n")
    assert place.run(text).expect() == "True 285\n"
    plain = subprocess.run(
        [sys.executable, "-W", "ignore", "script.py"], cwd=place.folder, env=place.env(),
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert plain.stdout == "False 285\n", plain.stderr


def test_a_module_of_the_user_named_scoop_is_not_replaced(place: Place) -> None:
    place.write("def ladle(): return 'soup'\n", "scoop.py")
    done = place.run("import scoop\nif __name__ == '__main__': print(scoop.ladle())\n")
    assert (done.expect(), done.err) == ("soup\n", "")


def test_a_module_of_scoop_without_counterpart_is_named(place: Place) -> None:
    done = place.run("import scoop.utils\n")
    assert done.code == 1
    assert "has no module scoop.utils; it has scoop, scoop._comm" in done.err


def test_a_name_of_scoop_without_counterpart_is_named(place: Place) -> None:
    done = place.run("import scoop\nprint(scoop.reference)\n")
    assert done.code == 1
    assert "scoop.reference does not exist in resilient_scoop" in done.err
