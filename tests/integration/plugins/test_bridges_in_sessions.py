"""Bridges in a program that `rscoop` did not start: their calls go to the workers of its executor."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

import pytest

from tests.integration.plugins.cases import TIMEOUT_S
from tests.integration.runs import Place

HEAD = """
import os
import numpy as np
from pathlib import Path
from resilient_scoop import Executor

def note():
    Path("pids", str(os.getpid())).touch()

def loss(x):
    note()
    return float(sum((each - 1.5) ** 2 for each in x))

class Sphere:
    def fitness(self, x):
        note()
        return [float((x**2).sum())]
    def get_bounds(self):
        return [-3.0] * 3, [3.0] * 3

def objective(trial):
    note()
    return (trial.suggest_float("x", -10, 10) - 2) ** 2

if __name__ == "__main__":
    os.mkdir("pids")
    with Executor(2) as executor:
"""
FOOT = """
        assert os.listdir("pids") and str(os.getpid()) not in os.listdir("pids")
"""
MYSTIC = """
        import mystic.solvers, mystic.termination
        from mystic.tools import random_seed
        from resilient_scoop.contrib.mystic import Mapper
        random_seed(9)
        solver = mystic.solvers.DifferentialEvolutionSolver2(2, 20)
        solver.SetMapper(Mapper(executor.map))
        solver.SetRandomInitialPoints([-4] * 2, [4] * 2)
        solver.SetEvaluationLimits(generations=60)
        solver.Solve(loss, mystic.termination.VTR(1e-9), disp=0)
        print(round(float(solver.bestEnergy), 3))
"""
OPTUNA = """
        import optuna
        from resilient_scoop.contrib.optuna import optimize
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=3))
        space = {"x": optuna.distributions.FloatDistribution(-10, 10)}
        optimize(study, objective, space, n_trials=40, submit=executor.submit)
        print(len(study.trials))
"""
NEVERGRAD = """
        import nevergrad
        space = nevergrad.p.Array(shape=(2,))
        space.random_state.seed(12)
        optimizer = nevergrad.optimizers.DE(parametrization=space, budget=60, num_workers=6)
        optimizer.minimize(loss, executor=executor, batch_mode=True)
        print(optimizer.num_tell)
"""
BFE = """
        import pygmo
        from resilient_scoop.contrib.pygmo import BatchEvaluator
        evaluator = pygmo.bfe(BatchEvaluator(executor.map))
        swarm = pygmo.pso_gen(gen=5, seed=2)
        swarm.set_bfe(evaluator)
        crowd = pygmo.population(pygmo.problem(Sphere()), size=10, b=evaluator, seed=5)
        print(len(pygmo.algorithm(swarm).evolve(crowd)))
"""
ISLANDS = """
        import pygmo
        from resilient_scoop.contrib.pygmo import Island
        archipelago = pygmo.archipelago(
            n=3, udi=Island(executor.submit), algo=pygmo.algorithm(pygmo.de(gen=5, seed=1)),
            prob=pygmo.problem(Sphere()), pop_size=10, seed=4,
        )
        archipelago.evolve()
        archipelago.wait_check()
        os.remove(f"pids/{os.getpid()}")  # of the first populations
        print(len(archipelago.get_champions_f()))
"""
CASES = [
    ("mystic", MYSTIC, "0.0"), ("optuna", OPTUNA, "40"), ("nevergrad", NEVERGRAD, "60"),
    ("pygmo", BFE, "10"), ("pygmo", ISLANDS, "3"),
]  # fmt: skip


@pytest.mark.plugins
@pytest.mark.parametrize(("library", "part", "printed"), CASES)
def test_a_bridge_makes_its_calls_with_the_given_executor(
    place: Place, library: str, part: str, printed: str
) -> None:
    if importlib.util.find_spec(library) is None:
        pytest.skip(f"{library} is not installed")
    path = place.write(HEAD + part + FOOT)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", path.name], cwd=place.folder, env=place.env(), text=True,
        capture_output=True, timeout=TIMEOUT_S, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, f"{printed}\n"), done.stderr
    place.assert_nothing_left()
