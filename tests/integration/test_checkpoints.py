"""Checkpoints in real runs: killed and gone on from, refused, fallen back from."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from resilient_scoop.adapters.journal_view import JournalView
from resilient_scoop.core.events import Table
from resilient_scoop.wire import messages as wire
from tests.integration.runs import Done, Place, wait_until

pytestmark = pytest.mark.real


@pytest.fixture
def place(tmp_path: Path, state_dir: Path) -> Place:
    return Place(tmp_path, state_dir)


def kill_all(place: Place) -> None:
    """Kill every process of the run at once."""
    while pids := list(place.processes()):
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        time.sleep(0.01)


def killed_at(place: Place, text: str, seen: str, *args: str, workers: int = 2) -> str:
    """Start a script, kill everything when a file of this name appears; return what it wrote."""
    path = place.write(text)
    out = place.folder / "out"
    with out.open("ab") as file:
        command = ["run", "-q", "-n", str(workers), path.name, *args]
        process = place.start(*command, stdout=file, stderr=file)
        try:
            wait_until(lambda: (place.folder / seen).exists() or process.poll() is not None)
        finally:
            kill_all(place)
            process.wait()
    return out.read_text()


def resumed(place: Place, *args: str, **more: object) -> Done:
    """Resume the last run to its end."""
    done = place.rscoop("resume", "last", *args, **more)  # type: ignore[arg-type]
    place.assert_nothing_left()
    return done


def records(place: Place) -> list[wire.Logged]:
    """Return the records of the last run's log."""
    with JournalView.open(place.runs()[-1] / "journal") as view:
        return [wire.decode_logged(raw) for _, raw in view.scan(Table.LOG)]


# --- killed, and gone on from -----------------------------------------------------------------

LOOP = """
import random, sys, time
import numpy
from pathlib import Path
from resilient_scoop import checkpoint, futures

class Individual(list):
    fitness = None

def work(x):
    return x * x + random.random()

def slow(x):
    time.sleep(0.003 * (x % 3))
    return x + random.random()

def island(k):
    total, stream = 0.0, futures.rng("island")
    with checkpoint.durable(total=0.0, gen=0) as s:
        while s.gen < 12:
            s.total += sum(futures.map(work, [k, s.gen, stream.random(), random.random()]))
            s.gen += 1
            s.commit(every_s=0.01 if k % 2 else None)
    return s.total

def population():
    return [Individual([random.random()]) for _ in range(5)]

def main(generations):
    stream = futures.rng("mutation")
    print("first", list(futures.map(work, range(3))))
    with checkpoint.durable(pop=population, gen=0, waiting=list, log=[],
                            worst=checkpoint.value(lambda x: -x)) as s:
        s.me = s
        while s.gen < generations:
            assert s.me is s and s.worst(2) == -2 and all(type(each) is Individual for each in s.pop)
            s.pop = [Individual([y]) for y in futures.map(work, [each[0] for each in s.pop])]
            s.waiting.append(futures.submit(slow, s.gen))
            if len(s.waiting) > 4:
                first = next(iter(futures.as_completed(s.waiting)))
                s.waiting.remove(first)
                s.log.append(first.result())
            drawn = futures.once(time.time_ns) % 1
            print(s.gen, s.pop[0][0], s.log[-1:] if s.log else [], random.random(),
                  numpy.random.rand(), stream.random(), drawn)
            s.gen += 1
            s.commit()
            if s.gen == generations // 2: Path("half").touch()
        rest = sorted(each.result() for each in s.waiting)
    print("islands", sorted(futures.map(island, range(3))))
    print("end", rest and rest[0] < 1e9)

if __name__ == "__main__":
    main(int(sys.argv[1]))
"""


def masked(text: str) -> list[list[str]]:
    """Return the lines without what depends on the order of completion."""
    return [line.split("[")[0].split() + line.split("]")[-1].split() for line in text.splitlines()]


def test_a_run_that_is_killed_at_random_moments_goes_on_from_its_checkpoints(place: Place) -> None:
    # Given what an undisturbed run writes
    place.write(LOOP)
    calm = Place(place.folder, place.folder / "calm")
    whole = calm.rscoop("run", "-q", "-n", "2", "--seed", "7", "script.py", "60").expect()
    calm.assert_nothing_left()

    # When a run is killed over and over
    chance, out = random.Random(3), place.folder / "out"
    command = ["run", "-q", "-n", "2", "--seed", "7", "script.py", "60"]
    with out.open("ab") as file:
        for _ in range(12):
            process = place.start(*command, stdout=file, stderr=file)
            time.sleep(0.45 + chance.random() * 0.5)
            kill_all(place)
            process.wait()
            command = ["resume", "last"]
        process = place.start("resume", "last", stdout=file, stderr=file)
        code = process.wait(60)
    place.assert_nothing_left()

    # Then it ends as the undisturbed one did
    written = "".join(
        line for line in out.read_text().splitlines(keepends=True) if "rscoop:" not in line
    )
    assert code == 0, out.read_text()
    assert masked(written) == masked(whole)


def test_results_that_a_checkpoint_covers_leave_the_journal(place: Place) -> None:
    place.run(LOOP, "60").expect()
    kept = [record for record in records(place) if record.parent == "0"]

    outcomes = {item.call for r in kept if isinstance(r, wire.Outcomes) for item in r.items}
    assert len(kept) < 60, kept
    assert 0 in outcomes, "what stands in front of the block must stay"
    assert len([r for r in kept if isinstance(r, wire.Checkpoint)]) == 2
    assert len([r for r in kept if isinstance(r, wire.Trimmed)]) == 1


# --- what cannot be saved ---------------------------------------------------------------------

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


def test_what_cannot_be_saved_is_refused_by_path_type_and_hint(place: Place) -> None:
    done = place.run(UNSAVABLE, "raise")

    assert done.code == 1
    assert "state.pop[3].cache.lock is a _thread.lock; leave it out with __getstate__" in done.err


def test_the_run_goes_on_without_a_checkpoint_if_told_so(place: Place) -> None:
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


def test_what_cannot_be_loaded_back_is_no_checkpoint(place: Place) -> None:
    """It is named by its path, and the run goes on from the one before."""
    done = place.run(UNLOADABLE, "raise")
    assert done.code == 70, str(done)
    assert "ValueError: no setting of me, when state.pop[1], a __main__.Odd, was loaded" in done.err
    assert len(list((place.runs()[-1] / "checkpoints").iterdir())) == 2
    (place.folder / "mended").touch()

    done = resumed(place)

    assert done.expect() == "end 6\n"
    assert "cannot be used" not in done.err


def test_what_cannot_be_loaded_back_leaves_no_files_behind(place: Place) -> None:
    done = place.run(UNLOADABLE, "warn")

    assert done.expect() == "end 6\n"
    assert done.err.count("no setting of me") == 1
    assert len(list((place.runs()[-1] / "checkpoints").iterdir())) == 2


# --- bad use ----------------------------------------------------------------------------------

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


def test_bad_use_is_told_what_to_do(place: Place) -> None:
    lines = dict(line.split(" ", 1) for line in place.run(MISUSE).expect().splitlines())

    assert "futures.progress(done, total, resume=" in lines["leaf"]
    assert "'main' of 0 is open already" in lines["twice"]
    assert "'outer' of 0 was committed while 'inner'" in lines["outer"]
    assert "checkpoint.value(" in lines["initial"]
    assert "is not open" in lines["late"]
    assert "checkpoint.restore(default, name='never')" in lines["lone"]
    assert "this name is taken" in lines["reserved"]
    assert "no attribute 'pop', only n, m: give its initial value in durable(pop=" in lines["unset"]
    assert "state.commit: this name is taken" in lines["taken"]
    assert "a string of 1 to 200 bytes, not 3" in lines["number"]
    assert "drawn from across commits" in lines["stray"]
    assert lines["again"] == "1"


# --- classes that change ----------------------------------------------------------------------

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


def test_a_class_that_changed_is_refused_by_name_and_field(place: Place) -> None:
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
def test_a_class_that_changed_is_migrated(place: Place, after: str, says: str) -> None:
    assert changed_class(place, after).expect().endswith(f"30 {says}\n")


@pytest.mark.parametrize(
    ("after", "says"),
    [(RAISING, "__rscoop_migrate__ raised ValueError: no way"), (GONE, "__main__:Box")],
)
def test_a_class_that_cannot_be_had_is_said(place: Place, after: str, says: str) -> None:
    done = changed_class(place, after)

    assert done.code == 70, str(done)
    assert says in done.err


# --- damage -----------------------------------------------------------------------------------

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


def test_a_damaged_checkpoint_is_fallen_back_from(place: Place) -> None:
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

    # Then it says so, goes on from the one before, and ends as if nothing had been
    assert "checkpoint 20 of block 'main' of 0 cannot be used: the content of the file" in done.err
    assert "falling back to checkpoint 19" in done.err
    lines = [*(str(n) for n in range(1, 31)), f"end {sum(range(31))}.0"]
    assert (before + done.expect()).splitlines() == lines


def test_with_no_checkpoint_left_the_run_refuses_and_keeps_all(place: Place) -> None:
    killed_at(place, LARGE, "now")
    folder = place.runs()[-1] / "checkpoints"
    kept = {path.name: path.read_bytes() for path in folder.iterdir()}
    for path in folder.iterdir():
        path.write_bytes(b"nothing")
    (place.folder / "go").touch()

    refused = resumed(place)
    assert refused.code == 70, str(refused)
    assert "cannot begin anew in this run; nothing was changed" in refused.err

    for name, content in kept.items():
        (folder / name).write_bytes(content)
    assert resumed(place).expect().splitlines()[-1] == f"end {sum(range(31))}.0"


# --- a task that has checkpoints of its own ---------------------------------------------------

NESTED = """
import numpy
from pathlib import Path
from resilient_scoop import checkpoint, futures
def work(x): return x + 1
def island(k):
    state = checkpoint.restore(lambda: [0, numpy.zeros(200_000)])
    while state[0] < 30:
        state[0], = futures.map(work, [state[0]])
        state[1][state[0]] = 1
        with open("ledger", "a") as file: file.write(f"{state[0]}\\n")
        checkpoint.save(state)
        if state[0] == 20 and not Path("go").exists():
            Path("now").touch()
            while True: pass
    return state[0], state[1].sum()
if __name__ == "__main__":
    print("island", *futures.submit(island, 1).result())
"""


def test_a_task_goes_on_from_its_checkpoint(place: Place) -> None:
    killed_at(place, NESTED, "now")
    (place.folder / "go").touch()

    assert resumed(place).expect() == "island 30 30.0\n"
    assert (place.folder / "ledger").read_text().split() == [str(n) for n in range(1, 31)]


def test_a_task_whose_checkpoint_cannot_be_used_halts_the_run_and_keeps_it(place: Place) -> None:
    killed_at(place, NESTED, "now")
    folder = place.runs()[-1] / "checkpoints"
    kept = {path.name: path.read_bytes() for path in folder.iterdir()}
    for path in folder.iterdir():
        path.write_bytes(b"nothing")
    (place.folder / "go").touch()
    done = resumed(place)

    assert done.code == 75, str(done)
    assert "block 'main' of 0.0[0] cannot go on" in done.err
    for name, content in kept.items():
        (folder / name).write_bytes(content)
    assert resumed(place).expect() == "island 30 30.0\n"
    assert (place.folder / "ledger").read_text().split() == [str(n) for n in range(1, 31)]


# --- more -------------------------------------------------------------------------------------

FUTURES = """
import sys, time
from pathlib import Path
from resilient_scoop import checkpoint, futures
def big(x): return bytes([x]) * 3_000_000
def late(x):
    while not Path("go").exists(): time.sleep(0.01)
    return x * x
def fails(x): raise ValueError(f"no {x}")
def size(data): return len(data)
if __name__ == "__main__":
    with checkpoint.durable(gen=0) as s:
        if s.gen == 0:
            s.seen = futures.submit(late if Path("go").exists() else size, b"abc")
            s.known = futures.submit(size, b"12345")
            s.known.result()
            s.arrived, s.large = futures.submit(size, b"x" * 7), futures.submit(big, 7)
            s.failed, s.unseen = futures.submit(fails, 1), futures.submit(fails, 2)
            try: s.failed.result()
            except ValueError: pass
            s.waiting = [futures.submit(late, n) for n in (3, 4)]
            s.argument = futures.submit(size, bytes(2_000_000))
            time.sleep(0.5)
            for s.gen in range(1, 6):
                list(futures.map(size, [b"x"] * 5))
                s.commit()
            Path("now").touch()
            while True: pass
        print(s.known.result(), s.known.done(), s.arrived.result(), len(s.large.result()))
        print(repr(s.failed.exception()), repr(s.unseen.exception()), s.argument.result())
        print(sorted(f.result() for f in futures.as_completed(s.waiting)), s.seen.result())
        print(list(futures.map(size, [b"new"])))
"""


def test_futures_in_the_state_live_again(place: Place) -> None:
    killed_at(place, FUTURES, "now", workers=4)
    (place.folder / "go").touch()

    assert resumed(place).expect().splitlines() == [
        "5 True 7 3000000", "ValueError('no 1') ValueError('no 2') 2000000", "[9, 16] 3", "[3]",
    ]  # fmt: skip


FULL = """
import resource, threading
import numpy
from resilient_scoop import checkpoint, futures
def work(x): return x + 1
def make_room(): resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
if __name__ == "__main__":
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    with checkpoint.durable(data=lambda: numpy.arange(200_000), gen=0) as s:
        while s.gen < 5:
            s.gen, = futures.map(work, [s.gen])
            if s.gen == 3:
                resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, unlimited[1]))
                threading.Timer(1.2, make_room).start()
            s.commit()
    print("end", s.gen, s.data.sum())
"""


def test_a_commit_waits_for_space(place: Place) -> None:
    done = place.run(FULL)

    assert done.expect() == f"end 5 {sum(range(200_000))}\n"
    assert "no space left in" in done.err
    assert "waits, nothing is lost" in done.err
    assert "there is room for the checkpoint" in done.err
    assert not list((place.runs()[-1] / "checkpoints").glob("*.tmp"))


def test_a_script_with_checkpoints_runs_without_rscoop(place: Place) -> None:
    path = place.write(LOOP)
    done = subprocess.run(
        [sys.executable, path.name, "3"], cwd=place.folder, env=place.env(), text=True,
        capture_output=True, timeout=60, check=True,
    )  # fmt: skip
    assert done.stdout.splitlines()[-1] == "end True"


def test_checkpoints_stand_a_replay_at_every_wait(place: Place) -> None:
    place.write(LOOP)
    whole = place.rscoop("run", "-q", "-n", "2", "--seed", "7", "script.py", "8").expect()
    place.environ["RSCOOP_ALWAYS_REPLAY"] = "1"
    again = place.rscoop("run", "-q", "-n", "2", "--seed", "7", "script.py", "8").expect()
    assert masked(again) == masked(whole)
