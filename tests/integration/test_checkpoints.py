"""Checkpoints in real runs: killed runs continue from them, in the script and in its tasks."""

from __future__ import annotations

import random
import subprocess
import sys
import time

import pytest

from resilient_scoop.wire import messages as wire
from tests.integration.killed import kill_all, killed_at, records, resumed
from tests.integration.runs import Place

pytestmark = pytest.mark.real


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
    """Return the lines without the parts that depend on the order of completion."""
    return [line.split("[")[0].split() + line.split("]")[-1].split() for line in text.splitlines()]


def test_a_run_that_is_killed_at_random_moments_continues_from_its_checkpoints(
    place: Place,
) -> None:
    # Given what an undisturbed run writes
    place.write(LOOP)
    calm = Place(place.folder, place.folder / "calm")
    whole = calm.rscoop("run", "-q", "-n", "2", "--seed", "7", "script.py", "60").expect()
    calm.assert_nothing_left()

    # When a run is killed repeatedly
    chance, out = random.Random(3), place.folder / "out"
    command = ["run", "-q", "-n", "2", "--seed", "7", "script.py", "60"]
    with out.open("ab") as file:
        for _ in range(12):
            process = place.start(*command, stdout=file, stderr=file)
            time.sleep(0.45 + chance.random() * 0.5)
            kill_all(place)
            process.wait()
            command = ["resume", "last"] if place.runs() else command
        process = place.start("resume", "last", stdout=file, stderr=file)
        code = process.wait(60)
    place.assert_nothing_left()

    # Then it ends like the undisturbed one
    written = "".join(
        line for line in out.read_text().splitlines(keepends=True) if "rscoop:" not in line
    )
    assert code == 0, out.read_text()
    assert masked(written) == masked(whole)


def test_results_that_a_checkpoint_covers_are_erased_from_the_journal(place: Place) -> None:
    place.run(LOOP, "60").expect()
    kept = [record for record in records(place) if record.parent == "0"]

    outcomes = {item.call for r in kept if isinstance(r, wire.Outcomes) for item in r.items}
    assert len(kept) < 60, kept
    assert 0 in outcomes, "what stands in front of the block must stay"
    assert len([r for r in kept if isinstance(r, wire.Checkpoint)]) == 2
    assert len([r for r in kept if isinstance(r, wire.Trimmed)]) == 1


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


def test_a_task_continues_from_its_checkpoint(place: Place) -> None:
    killed_at(place, NESTED, "now")
    (place.folder / "go").touch()

    assert resumed(place).expect() == "island 30 30.0\n"
    assert (place.folder / "ledger").read_text().split() == [str(n) for n in range(1, 31)]


def test_a_task_whose_checkpoint_cannot_be_used_stops_the_run_and_keeps_it(place: Place) -> None:
    killed_at(place, NESTED, "now")
    folder = place.runs()[-1] / "checkpoints"
    kept = {path.name: path.read_bytes() for path in folder.iterdir()}
    for path in folder.iterdir():
        path.write_bytes(b"nothing")
    (place.folder / "go").touch()
    done = resumed(place)

    assert done.code == 75, str(done)
    assert "block 'main' of 0.0[0] cannot continue" in done.err
    for name, content in kept.items():
        (folder / name).write_bytes(content)
    assert resumed(place).expect() == "island 30 30.0\n"
    assert (place.folder / "ledger").read_text().split() == [str(n) for n in range(1, 31)]


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


def test_futures_in_the_state_work_after_a_restart(place: Place) -> None:
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
    assert "rscoop: a checkpoint of block 'main' of 0 in " in done.err
    assert "would be larger than a file may be here" in done.err
    assert "nothing is lost" in done.err
    assert not list((place.runs()[-1] / "checkpoints").glob("*.tmp"))


def test_a_script_with_checkpoints_runs_without_rscoop(place: Place) -> None:
    path = place.write(LOOP)
    done = subprocess.run(
        [sys.executable, path.name, "3"], cwd=place.folder, env=place.env(), text=True,
        capture_output=True, timeout=60, check=True,
    )  # fmt: skip
    assert done.stdout.splitlines()[-1] == "end True"


def test_checkpoints_work_when_parents_are_replayed_at_every_wait(place: Place) -> None:
    place.write(LOOP)
    whole = place.rscoop("run", "-q", "-n", "2", "--seed", "7", "script.py", "8").expect()
    place.environ["RSCOOP_ALWAYS_REPLAY"] = "1"
    again = place.rscoop("run", "-q", "-n", "2", "--seed", "7", "script.py", "8").expect()
    assert masked(again) == masked(whole)
