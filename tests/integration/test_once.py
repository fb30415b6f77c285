"""`once` in real runs: the same answer again, whatever its function did and whenever it died."""

from __future__ import annotations

import pytest

from tests.integration.runs import Place, ledger

pytestmark = pytest.mark.real

ALL_KINDS = """
import os, random, sys, time
from pathlib import Path
from resilient_scoop import futures

def sq(x): return x * x

def note(text):
    with open("ledger", "a") as file: file.write(f"{text}\\n")

def stamp():
    note("stamp")
    return time.time_ns()

def search():
    note("search")
    first = futures.submit(sq, 3)
    asked = first.done()
    chosen = [value for value in futures.map_as_completed(sq, range(4))]
    return asked, chosen, first.result(), time.time_ns()

def nested():
    note("nested")
    return futures.once(stamp), sum(futures.map(sq, range(3))), futures.once(stamp), time.time_ns()

def fails():
    note("fails")
    raise ValueError(f"{sum(futures.map(sq, range(3)))} {time.time_ns()}")

def unsavable():
    note("unsavable")
    return sys.stdout

def caught(function):
    try: return futures.once(function)
    except Exception as error: return f"{type(error).__name__} {error}"

def below(x):
    return futures.once(search), futures.submit(sq, x).result(), futures.once(nested)

def all_of_them():
    return [futures.once(stamp), futures.once(search), futures.once(nested), caught(fails),
            caught(unsavable), futures.once(nested), list(futures.map(below, [1, 2])), futures.once(stamp),
            futures.once(lambda: list(futures.map(sq, range(2)))), futures.submit(sq, 5).result()]
"""
MAIN = "\nif __name__ == '__main__': print(len(all_of_them()))"
KILLED = (
    ALL_KINDS
    + """
if __name__ == "__main__":
    got = repr(all_of_them())
    seen = Path("seen").read_text() if Path("seen").exists() else None
    if seen is None:
        Path("seen").write_text(got)
        os.kill(os.getpid(), 9)
    print(got == seen, got if got != seen else "")
"""
)
PAYMENTS = (
    ALL_KINDS
    + """
def pay(no):
    if no % 3 == 1: futures.submit(sq, no).result()
    if no % 3 == 2: futures.once(stamp)
    note(f"paid {no}")
    return no

if __name__ == "__main__":
    for no in range(6):
        print(futures.once(pay, no))
        if not Path(f"killed{no}").exists():  # right after it, before anything else happens
            Path(f"killed{no}").touch()
            os.kill(os.getpid(), 9)
        futures.submit(sq, no).result()
"""
)


def test_once_returns_its_recorded_answer_whatever_its_function_did(place: Place) -> None:
    done = place.run(KILLED)

    assert done.expect() == "True \n", str(done)
    assert sorted(ledger(place)).count("search") == 3
    assert sorted(ledger(place)).count("nested") == 4
    assert sorted(ledger(place)).count("unsavable") == sorted(ledger(place)).count("fails") == 1
    assert "replay:" not in done.err


def test_a_death_right_after_a_payment_does_not_repeat_it(place: Place) -> None:
    done = place.run(PAYMENTS)

    assert done.expect().split() == [str(no) for no in range(6)], str(done)
    assert [each for each in ledger(place) if each != "stamp"] == [f"paid {no}" for no in range(6)]


def test_always_replay_runs_no_function_of_once_again(place: Place) -> None:
    done = place.run(ALL_KINDS + MAIN, "--always-replay")

    assert done.expect() == "10\n", str(done)
    assert sorted(ledger(place)).count("search") == 3
    assert sorted(ledger(place)).count("nested") == 4


def test_a_replay_without_workers_skips_calls_made_inside_of_once(place: Place) -> None:
    place.run(ALL_KINDS + MAIN).expect()
    before = ledger(place)

    done = place.rscoop("replay", "last")

    assert done.code == 0, str(done)
    assert ledger(place) == before


EDITED = """
import functools, os
from resilient_scoop import futures
def read(name, more=()): return name
def stamp(): return 1
if __name__ == "__main__":
    print(futures.once(read, "b", more=[1, {"k": 2.0}]), futures.once(stamp))
    print(futures.once(functools.partial(read, "c")), futures.once(lambda: 3))
    print((lambda n: futures.once(lambda: n + 1))(5))
    if not os.path.exists("end"): raise SystemExit(5)
"""


@pytest.mark.parametrize(
    ("old", "new", "name"),
    [
        ("futures.once(read", 'futures.once(read, "a"), futures.once(read', "read"),
        ("2.0", "2", "read"),
        ('"c"', '"d"', "partial"),
        ("return 1", "return 2", "stamp"),
        ("lambda: 3", "lambda: 4", "<lambda>"),
        ("(5)", "(6)", "<lambda>.<locals>.<lambda>"),
        ("return 1", "return 1  # always", ""),
    ],
)
def test_a_resume_says_that_a_function_of_once_was_edited(
    place: Place, old: str, new: str, name: str
) -> None:
    place.run(EDITED).expect(5)
    place.write(EDITED.replace(old, new))
    (place.folder / "end").touch()

    done = place.rscoop("resume", "last")

    done.expect()
    said = f"`once({name})` has other code or arguments than before, and keeps its value"
    if name:
        assert said in done.err
    else:
        assert "replay:" not in done.err
