"""The examples print the same on one worker, on two, and without rscoop."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

EXAMPLES = Path(__file__).parent.parent.parent / "examples"
RSCOOP = ["-m", "resilient_scoop", "run"]
TIMEOUT_S = 90

SMALL = {
    "cma_es.py": ["--generations", "30", "--dimensions", "4", "--cost-ms", "0.1"],
    "ising.py": ["--size", "8", "--sweeps", "60", "--temperatures", "1.5", "3.0"],
    "pymoo_nsga2.py": ["--generations", "8", "--population", "12", "--cost-ms", "0.1"],
    "onemax.py": ["--generations", "12", "--population", "30", "--bits", "40", "--cost-ms", "0.1"],
    "pi.py": ["--tasks", "6", "--points", "2000"],
    "tree_search.py": ["--queens", "6", "--depth", "3"],
    "steady_state.py": ["--bits", "16", "--population", "10", "--cost-ms", "0.1"],
    "sweep.py": ["--steps", "2", "--repeats", "1", "--generations", "4"],
}
LAST_LINE = {
    "cma_es.py": "best: ",
    "ising.py": "at 3.00: magnetization 0.",
    "pymoo_nsga2.py": "front: ",
    "onemax.py": "best: ",
    "pi.py": "pi is 3.",
    "tree_search.py": "6 queens: 4 solutions",
    "steady_state.py": "optimum found: 32",
    "sweep.py": "wrote sweep.png",
}
SAME_WITHOUT_RSCOOP = ["onemax.py", "sweep.py", "cma_es.py", "pymoo_nsga2.py"]
"""Scripts that seed themselves and use only `map`, which runs serially without a launcher."""

pytestmark = pytest.mark.real


def python(arguments: list[str], folder: Path, **environ: str) -> str:
    """Run the interpreter in `folder` and return its standard output."""
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**os.environ, "MPLCONFIGDIR": str(folder), **environ},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def needs(script: str) -> Any:
    """Return the script as a parameter; skip it if its library is not installed."""
    missing = script.startswith("pymoo") and importlib.util.find_spec("pymoo") is None
    return pytest.param(script, marks=pytest.mark.skipif(missing, reason="pymoo is not installed"))


def example(script: str) -> list[str]:
    return [str(EXAMPLES / script), *SMALL[script]]


def test_every_example_is_tried_here() -> None:
    assert sorted(SMALL) == sorted(path.name for path in EXAMPLES.glob("*.py"))


@pytest.mark.parametrize("script", [needs(script) for script in SMALL])
def test_an_example_prints_the_same_on_any_number_of_workers(script: str, tmp_path: Path) -> None:
    alone = python([*RSCOOP, "-n", "1", "--seed", "7", *example(script)], tmp_path)
    together = python([*RSCOOP, "-n", "2", "--seed", "7", *example(script)], tmp_path)

    assert together == alone
    assert together.splitlines()[-1].startswith(LAST_LINE[script])


@pytest.mark.parametrize("script", [needs(script) for script in SMALL])
def test_an_example_prints_the_same_when_every_parent_is_replayed_at_every_wait(
    script: str, tmp_path: Path
) -> None:
    words = [*RSCOOP, "-n", "2", "--seed", "7", str(EXAMPLES / script), *SMALL[script]]
    plain = python(words, tmp_path)
    replayed = python(words, tmp_path, RSCOOP_ALWAYS_REPLAY="1")

    # A script that depends on the order of completion has another history in each run.
    if script == "steady_state.py":
        assert replayed.splitlines()[-1].startswith("optimum found: ")
    else:
        assert replayed == plain


@pytest.mark.parametrize("script", [needs(script) for script in SAME_WITHOUT_RSCOOP])
def test_an_example_prints_the_same_without_rscoop(script: str, tmp_path: Path) -> None:
    serial = python(example(script), tmp_path)
    together = python([*RSCOOP, "-n", "2", *example(script)], tmp_path)

    assert together == serial


def test_the_sweep_writes_a_table_with_a_row_for_each_point(tmp_path: Path) -> None:
    python([*RSCOOP, "-n", "2", *example("sweep.py"), "--out", "files"], tmp_path)

    table = (tmp_path / "files" / "sweep.csv").read_text().splitlines()
    assert table[0] == "weight,crossover,mean,best"
    assert len(table) == 1 + 2 * 2
    assert (tmp_path / "files" / "sweep.png").stat().st_size > 0


def test_onemax_gives_advice_if_deap_is_missing(tmp_path: Path) -> None:
    hidden = (
        "import runpy, sys; sys.modules['deap'] = None; "
        "runpy.run_path(sys.argv[1], run_name='__main__')"
    )
    done = subprocess.run(
        [sys.executable, "-c", hidden, str(EXAMPLES / "onemax.py")],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 2
    assert "pip install deap" in done.stderr
