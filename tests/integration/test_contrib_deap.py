"""DEAP's loops in real runs, killed and resumed, give the results of DEAP's own to the last bit."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.runs import Place, finish, wait_until

pytestmark = pytest.mark.real

SCRIPT = """
import random, sys, time
import numpy as np
from deap import algorithms, base, cma, creator, tools
from resilient_scoop import futures
from resilient_scoop.contrib import deap as contrib
creator.create("Max", base.Fitness, weights=(1.0,))
creator.create("Bits", list, fitness=creator.Max)
creator.create("Min", base.Fitness, weights=(-1.0,))
creator.create("Vector", list, fitness=creator.Min)
KIND, WHOSE, NGEN, PAUSE_S = sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])

def ones(bits): return (float(sum(bits)),)
def sphere(vector): return (float(sum(x * x for x in vector)),)

def fitness(individual):
    return individual.fitness.values[0]

def note(values):
    time.sleep(PAUSE_S)
    with open("ledger", "a") as file: file.write("generation\\n")
    return max(values)

def main():
    random.seed(11); np.random.seed(11)
    box = base.Toolbox()
    box.register("map", futures.map)
    best = tools.HallOfFame(2)
    stats = tools.Statistics(fitness)
    stats.register("max", note)
    module = contrib if WHOSE == "contrib" else algorithms
    more = {"every_s": None} if WHOSE == "contrib" else {}
    if KIND == "generate":
        strategy = cma.Strategy(centroid=[3.0] * 3, sigma=1.0, lambda_=6)
        box.register("generate", strategy.generate, creator.Vector)
        box.register("update", strategy.update)
        box.register("evaluate", sphere)
        pop, book = module.eaGenerateUpdate(box, NGEN, best, stats, **more)
    else:
        box.register("bit", random.randint, 0, 1)
        box.register("individual", tools.initRepeat, creator.Bits, box.bit, 16)
        box.register("evaluate", ones)
        box.register("mate", tools.cxTwoPoint)
        box.register("mutate", tools.mutFlipBit, indpb=0.1)
        box.register("select", tools.selTournament, tournsize=3)
        pop = [box.individual() for _ in range(10)]
        args = {"simple": (0.5, 0.3), "plus": (10, 12, 0.5, 0.3), "comma": (10, 12, 0.5, 0.3)}[KIND]
        loop = {"simple": "eaSimple", "plus": "eaMuPlusLambda", "comma": "eaMuCommaLambda"}[KIND]
        pop, book = getattr(module, loop)(pop, box, *args, NGEN, stats, best, **more)
    print([(list(each), each.fitness.values) for each in pop])
    print([list(each) for each in best], len(book), random.random(), np.random.random())

if __name__ == "__main__":
    main()
"""
KINDS = ("simple", "plus", "comma", "generate")
NGEN = 40


@pytest.fixture
def place(tmp_path: Path, state_dir: Path) -> Place:
    made = Place(tmp_path, state_dir)
    made.write(SCRIPT)
    return made


def generations(place: Place) -> int:
    path = place.folder / "ledger"
    return len(path.read_text().splitlines()) if path.exists() else 0


def answer_of(place: Place, kind: str, whose: str, ngen: int) -> str:
    """Return what the script prints without a kill, and remove that run."""
    args = ("run", "-q", "-n", "2", "--seed", "3", "script.py", kind, whose, str(ngen), "0")
    answer = place.rscoop(*args).expect()
    (place.folder / "ledger").unlink()
    return answer


@pytest.mark.parametrize("kind", KINDS)
def test_a_loop_that_is_killed_continues_from_its_checkpoint(kind: str, place: Place) -> None:
    # Given the output of DEAP's own loop, and a run of ours in the middle of its generations
    expected = answer_of(place, kind, "theirs", NGEN)
    args = ("run", "-q", "-n", "2", "--seed", "3", "script.py", kind, "contrib", str(NGEN), "0.05")
    process = place.start(*args)
    wait_until(lambda: generations(place) >= 25, 20.0)

    # When everything is killed, and resumed
    for pid in place.processes():
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    printed = finish(process).out
    before = generations(place)
    done = place.rscoop("resume", "-q", "last").expect()

    # Then all lines are those of DEAP, and only the rest was computed again
    assert printed + done == expected, (printed, done)
    assert generations(place) - before <= NGEN + 1 - before + 2
    place.assert_nothing_left()


def test_two_loops_in_one_script_have_a_checkpoint_each(place: Place) -> None:
    place.write(SCRIPT.replace("    main()\n", "    main()\n    main()\n"))
    expected = answer_of(place, "simple", "theirs", 12)
    args = ("run", "-q", "-n", "2", "--seed", "3", "script.py", "simple", "contrib", "12", "0.05")
    process = place.start(*args)
    wait_until(lambda: generations(place) >= 18, 20.0)
    process.send_signal(signal.SIGINT)
    printed = finish(process).out
    before = generations(place)

    assert printed + place.rscoop("resume", "-q", "last").expect() == expected
    assert generations(place) - before <= 26 - before + 2


@pytest.mark.parametrize("kind", ["simple", "generate"])
def test_the_loops_without_rscoop_are_deap_s(kind: str, place: Place) -> None:
    outputs = [
        subprocess.run(
            [sys.executable, "-W", "ignore", "script.py", kind, whose, "10", "0"],
            cwd=place.folder, env=place.env(), capture_output=True, text=True, timeout=60, check=True,
        ).stdout
        for whose in ("theirs", "contrib")
    ]  # fmt: skip
    assert outputs[0] == outputs[1]
