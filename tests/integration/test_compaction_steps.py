"""Runs that are killed at each step of a compaction of their journal (ALWAYS-OPENS)."""

from __future__ import annotations

from pathlib import Path

import pytest

from resilient_scoop.journal.damage_check import Depth, check
from resilient_scoop.journal.place import data_file
from tests.integration import killing_at_steps
from tests.integration.runs import Place

pytestmark = pytest.mark.real

# The payloads of a parent's calls are erased at its end, so that most of the file is free. Later
# calls are committed during the compaction; `wait` returns when that is done, or when a process was
# killed.
SCRIPT = """
import os, sys, time
from pathlib import Path
from resilient_scoop import futures
def work(x): return bytes([x]) * 20_000
def parent(x): return sum(map(len, futures.map(work, range(10))))
def nap(x):
    time.sleep(0.01)
    return x
def wait(number):
    folder, until = f"compact-{number}", time.monotonic() + 20
    state, killed = Path(os.environ["RSCOOP_STATE_DIR"]), Path("killed")
    while not killed.exists() and time.monotonic() < until:
        time.sleep(0.01)
        if folder in max(state.glob("runs/*/journal/generation.json")).read_text(): break
    return number
if __name__ == "__main__":
    told = []
    for number in range(1, 1 + int(sys.argv[1])):
        told += futures.map(parent, [number])
        told += [futures.submit(nap, i).result() for i in range(9)]
        told += [futures.submit(wait, number).result()]
        told += [futures.submit(nap, i).result() for i in range(9)]
    print(told)
"""
STEPS = {
    "compaction": ("mkdir", "Popen", "open_store", "_catch_up", "fdopen", "fsync", "rename"),
    "remover": ("unlink", "rmdir"),
    "copier": ("copy", "write", "fsync", "check_copy"),
}
STEPS_MAX = 60


def journal_of(place: Place) -> Path:
    """Check that a journal is sound and that only its current file is left; return it."""
    journal = place.runs()[-1] / "journal"
    assert list(journal.rglob("data.mdb")) == [data_file(journal)]
    assert len(list(journal.glob("compact-*"))) <= 1
    assert check(journal, Depth.CONTENTS).sound
    return journal


@pytest.mark.timeout(600)
@pytest.mark.parametrize("who", ["one", "all"])
@pytest.mark.parametrize("role", list(STEPS))
def test_a_run_may_die_at_each_step_of_a_compaction(
    place: Place, role: str, who: str, each_step: int
) -> None:
    # Given a run that compacts its journal; a folder is removed only by the second compaction. All
    # processes die after each step: before the next step the disk is the same.
    times = 2 if role == "remover" else 1
    sides = "before after" if who == "one" else "after"
    output = [x for n in range(1, times + 1) for x in (200_000, *range(9), n, *range(9))]
    place.write(SCRIPT)
    where: list[str] = []
    at = ""
    for step in range(1, STEPS_MAX, each_step):
        killing_at_steps.install(place.folder, place.environ, role, step, who, sides)
        (place.folder / "armed").touch()

        # When one or all processes are killed at each step
        done = place.rscoop("run", "-q", "-n", "1", "--seed", "5", "script.py", str(times))
        at = killing_at_steps.killed_where(place.folder)
        if who == "all" and at:
            done = place.rscoop("resume", "-q", "last")

        # Then the run ends like an undisturbed one, with one sound data file
        assert done.expect() == f"{output}\n", f"step {step}, {at}: {done}"
        place.assert_nothing_left()
        journal = journal_of(place)
        if not at:
            assert data_file(journal).parent.name == f"compact-{times}"
            break
        where.append(at)
    assert not at, f"no end of steps: {where}"
    wanted = {f"{side} {kind}" for side in sides.split() for kind in STEPS[role]}
    assert set(where) == wanted or (each_step > 1 and set(where) <= wanted)
    place.rscoop("journal", "verify", "last").expect()
