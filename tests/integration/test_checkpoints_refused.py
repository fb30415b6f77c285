"""Refused checkpoints: states that cannot be saved or loaded, wrong use, changed classes, damage."""

from __future__ import annotations

import pytest

from tests.integration.killed import killed_at, resumed
from tests.integration.runs import Done, Place

pytestmark = pytest.mark.real


UNSAVABLE = """
import sys, threading
from resilient_scoop import checkpoint, futures

class Cache:
    def __init__(self): self.lock = threading.Lock()
class One:
    def __init__(self): self.cache = Cache()
def work(x): return x
if __name__ == "__main__":
    with checkpoint.durable(pop=lambda: [1, 2, 3, One()], gen=0, on_unsavable=sys.argv[1]) as s:
        for _ in range(3):
            list(futures.map(work, range(3)))
            s.commit()
    print("end")
"""


def test_an_unsavable_part_is_refused_with_path_type_and_hint(place: Place) -> None:
    done = place.run(UNSAVABLE, "raise")

    assert done.code == 1
    assert "state.pop[3].cache.lock is a _thread.lock; leave it out with __getstate__" in done.err


def test_the_run_continues_without_a_checkpoint_if_the_user_allows_it(place: Place) -> None:
    done = place.run(UNSAVABLE, "warn")

    assert done.expect() == "end\n"
    assert done.err.count("state.pop[3].cache.lock") == 1


UNLOADABLE = """
import sys, os
from pathlib import Path
import numpy
from resilient_scoop import checkpoint, futures
class Odd:
    def __init__(self): self.x = 1
    def __setstate__(self, state): raise ValueError("no setting of me")
def work(x): return x
if __name__ == "__main__":
    with checkpoint.durable(gen=0, pad=lambda: numpy.zeros(100_000), on_unsavable=sys.argv[1]) as s:
        while s.gen < 6:
            list(futures.map(work, range(3)))
            s.gen += 1
            if s.gen == 4 and not Path("mended").exists(): s.pop = [1, Odd()]
            s.commit()
    print("end", s.gen)
"""


def test_a_state_that_cannot_be_loaded_back_does_not_count_as_a_checkpoint(place: Place) -> None:
    """The error names its path, and the run continues from the checkpoint before."""
    done = place.run(UNLOADABLE, "raise")
    assert done.code == 70, str(done)
    assert "ValueError: no setting of me, when state.pop[1], a __main__.Odd, was loaded" in done.err
    assert len(list((place.runs()[-1] / "checkpoints").iterdir())) == 2
    (place.folder / "mended").touch()

    done = resumed(place)

    assert done.expect() == "end 6\n"
    assert "cannot be used" not in done.err


def test_a_state_that_cannot_be_loaded_back_leaves_no_files(place: Place) -> None:
    done = place.run(UNLOADABLE, "warn")

    assert done.expect() == "end 6\n"
    assert done.err.count("no setting of me") == 1
    assert len(list((place.runs()[-1] / "checkpoints").iterdir())) == 2


MISUSE = """
from resilient_scoop import checkpoint, futures
def leaf(x):
    with checkpoint.durable(n=0) as s:
        s.commit()
def attempt(what, function):
    try:
        function()
    except Exception as error:
        print(what, type(error).__name__, error)
def twice():
    with checkpoint.durable(n=0), checkpoint.durable(n=0): pass
def outer():
    with checkpoint.durable("outer", n=0) as a, checkpoint.durable("inner", n=0):
        a.commit()
def initial():
    with checkpoint.durable(loss=lambda x: x): pass
def late():
    with checkpoint.durable(n=0) as s: pass
    s.commit()
def lone(): checkpoint.save(1, name="never")
def reserved(): checkpoint.durable(commit=1)
def unset():
    with checkpoint.durable(n=0, m=1) as s: s.pop
def taken():
    with checkpoint.durable(n=0) as s: s.commit = 3
def number(): checkpoint.durable(3)
def stray():
    with checkpoint.durable("stray") as s:
        stream = futures.rng()
        for _ in range(2):
            stream.random()
            s.commit()
if __name__ == "__main__":
    attempt("leaf", lambda: futures.submit(leaf, 1).result())
    for function in (twice, outer, initial, late, lone, reserved, unset, taken, number, stray):
        attempt(function.__name__, function)
    with checkpoint.durable(n=0) as first: first.commit()
    with checkpoint.durable(n=1) as second: print("again", second.n)
"""


def test_an_error_of_wrong_use_has_advice(place: Place) -> None:
    lines = dict(line.split(" ", 1) for line in place.run(MISUSE).expect().splitlines())

    assert "futures.progress(done, total, resume=" in lines["leaf"]
    assert "'main' of 0 is already open" in lines["twice"]
    assert "'outer' of 0 was committed while block 'inner'" in lines["outer"]
    assert "checkpoint.value(" in lines["initial"]
    assert "is not open" in lines["late"]
    assert "checkpoint.restore(default, name='never')" in lines["lone"]
    assert "this name is taken" in lines["reserved"]
    assert "no attribute 'pop', only n, m: give its initial value in durable(pop=" in lines["unset"]
    assert "state.commit: this name is taken" in lines["taken"]
    assert "a string of 1 to 200 bytes, not 3" in lines["number"]
    assert "used in more than one round" in lines["stray"]
    assert lines["again"] == "1"


CLASSES = """
import sys
from dataclasses import dataclass, field
from pathlib import Path
from resilient_scoop import checkpoint, futures
{classes}
def work(x): return x + 1
if __name__ == "__main__":
    with checkpoint.durable(box=lambda: Box(1), gen=0) as s:
        while s.gen < 30:
            s.gen, = futures.map(work, [s.gen])
            s.commit()
            if s.gen == 20 and not Path("go").exists():
                Path("now").touch()
                while True: pass
    print(s.gen, vars(s.box))
"""
FIRST = """
class Box:
    def __init__(self, size): self.size = size
"""
RENAMED = """
class Box:
    def __init__(self, size): self.width = size
"""
MIGRATING = """
class Box:
    def __init__(self, size): self.width = size
    @staticmethod
    def __rscoop_migrate__(old): return {"width": old["size"] + 100}
"""
RAISING = MIGRATING.replace('return {"width": old["size"] + 100}', 'raise ValueError("no way")')
DEFAULTED = """
class Box:
    color = "red"
    def __init__(self, size): self.size, self.color = size, "blue"
"""
GONE = "def Box(size): raise SystemExit(9)\n"


def changed_class(place: Place, after: str) -> Done:
    killed_at(place, CLASSES.format(classes=FIRST), "now")
    (place.folder / "go").touch()
    place.write(CLASSES.format(classes=after))
    return resumed(place, "--reuse-changed")


def test_a_changed_class_is_refused_with_its_name_and_field(place: Place) -> None:
    done = changed_class(place, RENAMED)

    assert done.code == 70, str(done)
    assert "__main__:Box has no field 'size' any more and has a new field 'width'" in done.err
    assert "__rscoop_migrate__(old)" in done.err
    assert "nothing was changed" in done.err

    # And with the old class back, nothing is lost
    place.write(CLASSES.format(classes=FIRST))
    assert resumed(place, "--reuse-changed").expect().endswith("30 {'size': 1}\n")


@pytest.mark.parametrize(
    ("after", "says"), [(MIGRATING, "{'width': 101}"), (DEFAULTED, "{'size': 1, 'color': 'red'}")]
)
def test_a_changed_class_is_migrated(place: Place, after: str, says: str) -> None:
    assert changed_class(place, after).expect().endswith(f"30 {says}\n")


@pytest.mark.parametrize(
    ("after", "says"),
    [(RAISING, "__rscoop_migrate__ raised ValueError: no way"), (GONE, "__main__:Box")],
)
def test_a_class_that_cannot_be_imported_is_reported(place: Place, after: str, says: str) -> None:
    done = changed_class(place, after)

    assert done.code == 70, str(done)
    assert says in done.err


LARGE = """
import sys
from pathlib import Path
import numpy
from resilient_scoop import checkpoint, futures
def work(x): return x + 1
if __name__ == "__main__":
    with checkpoint.durable(data=lambda: numpy.zeros(200_000), gen=0) as s:
        while s.gen < 30:
            s.gen, = futures.map(work, [s.gen])
            s.data[s.gen] = s.gen
            s.commit()
            print(s.gen)
            if s.gen == 20 and not Path("go").exists():
                Path("now").touch()
                while True: pass
    print("end", s.data.sum())
"""


def test_a_run_continues_from_the_checkpoint_before_a_damaged_one(place: Place) -> None:
    # Given a run whose newest checkpoint's file is damaged
    before = killed_at(place, LARGE, "now")
    files = sorted((place.runs()[-1] / "checkpoints").iterdir(), key=lambda p: p.stat().st_mtime)
    assert len(files) in (2, 3), "two generations are kept, and one that is not verified"
    with files[-1].open("r+b") as file:
        file.seek(900_000)
        file.write(b"damage")
    (place.folder / "go").touch()

    # When it is resumed
    done = resumed(place)

    # Then it reports the damage, continues from the one before, and ends like an undisturbed run
    assert "checkpoint 20 of block 'main' of 0 cannot be used: the content of the file" in done.err
    assert "falling back to checkpoint 19" in done.err
    lines = [*(str(n) for n in range(1, 31)), f"end {sum(range(31))}.0"]
    assert (before + done.expect()).splitlines() == lines


def test_without_a_usable_checkpoint_the_run_stops_and_keeps_its_journal(place: Place) -> None:
    killed_at(place, LARGE, "now")
    folder = place.runs()[-1] / "checkpoints"
    kept = {path.name: path.read_bytes() for path in folder.iterdir()}
    for path in folder.iterdir():
        path.write_bytes(b"nothing")
    (place.folder / "go").touch()

    refused = resumed(place)
    assert refused.code == 70, str(refused)
    assert "cannot start from the beginning; nothing was changed" in refused.err

    for name, content in kept.items():
        (folder / name).write_bytes(content)
    assert resumed(place).expect().splitlines()[-1] == f"end {sum(range(31))}.0"
