"""Runs that are killed at each step of a commit: while it is written, recorded, used and erased."""

from __future__ import annotations

import pytest

from tests.integration import killing_at_steps
from tests.integration.runs import Place

pytestmark = pytest.mark.real

SCRIPT = """
import os, random, time, numpy
from pathlib import Path
from resilient_scoop import checkpoint, futures
def work(x): return x + random.random()
def big(x): return bytes([x]) * 1_500_000
def await_removal():
    folder = Path(os.environ["RSCOOP_STATE_DIR"], "runs", os.environ["RSCOOP_RUN_ID"], "checkpoints")
    until = time.monotonic() + 5
    while len(list(folder.iterdir())) > 2 and time.monotonic() < until: time.sleep(0.01)
if __name__ == "__main__":
    with checkpoint.durable(gen=0, pad=lambda: numpy.zeros(80_000), total=0.0, f=None) as s:
        while s.gen < 7:
            s.total += sum(futures.map(work, range(4))) + random.random()
            if s.f is not None: s.total += len(s.f.result())
            s.f = futures.submit(big, s.gen)
            s.gen += 1
            s.pad[:] = s.gen
            if s.gen == 4: Path("armed").touch()
            s.commit()
            if s.gen == 5:
                await_removal()
                Path("armed").unlink(missing_ok=True)
    print(s.gen, s.pad.sum(), s.total, len(s.f.result()))
"""
ARGS = ("run", "-q", "-n", "1", "--seed", "5", "script.py")
KINDS = ("writev", "fsync", "rename", "commit")


def steps(place: Place, role: str, who: str, chosen: range) -> list[str]:
    """Kill one run at each step; each must end like an undisturbed run."""
    place.write(SCRIPT)
    calm = Place(place.folder, place.folder / "calm")
    output = calm.rscoop(*ARGS).expect()
    where: list[str] = []
    for step in chosen:
        killing_at_steps.install(place.folder, place.environ, role, step, who)
        done = place.rscoop(*ARGS)
        at = killing_at_steps.killed_where(place.folder)
        if who == "all" and at:
            done = place.rscoop("resume", "-q", "last")
        assert done.expect() == output, f"step {step}, {at}"
        place.assert_nothing_left()
        kept = sorted(path.name for path in (place.runs()[-1] / "checkpoints").iterdir())
        assert len(kept) == 2, f"step {step}, {at}: {kept}"
        if not at:
            break
        where.append(at)
    return where


@pytest.mark.timeout(900)
@pytest.mark.parametrize("who", ["one", "all"])
def test_the_script_may_die_at_each_step_of_a_commit(
    place: Place, who: str, each_step: int
) -> None:
    where = steps(place, "origin", who, range(1, 13, each_step))

    wanted = {f"{when} {kind}" for when in ("before", "after") for kind in KINDS[:3]}
    assert wanted <= set(where) or (each_step > 1 and where)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("who", ["one", "all"])
def test_the_broker_may_die_at_each_commit_and_removal(
    place: Place, who: str, each_step: int
) -> None:
    where = steps(place, "broker", who, range(1, 120, each_step))
    wanted = {"before commit", "after commit", "before unlink", "after unlink"}
    if each_step == 1 and not wanted <= set(where):
        # A commit may hold the changes of several turns, so the steps of two runs can differ by one.
        where += steps(place, "broker", who, range(1, 120))
    assert wanted <= set(where) or (each_step > 1 and where), where
