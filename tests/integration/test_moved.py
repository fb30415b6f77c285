"""Sweeps that get a value between a run and its resume: results are found by function and arguments."""

from __future__ import annotations

import pytest

from tests.integration.runs import Place, ledger

pytestmark = pytest.mark.real

SWEEP = """
import math, os, random, sys, time
import numpy as np
from pathlib import Path
from resilient_scoop import futures

def cost(x):
    grid = np.linspace(0.0, 1.0, 20)
    return sum(math.sin(i * x) for i in range(200)) + float(np.sum(np.exp(-x * grid)))

def pair(x, y):
    time.sleep(0.001)
    return {"x": x, "text": f"{x:.2f}/{y}", "sum": x + y}

def configured(config):
    return [config["rate"] * n for n in config["steps"]]

def drawn(x):
    return x + random.random()

def plain(values):
    return [cost(value) for value in values]

if __name__ == "__main__":
    xs = [0.5, 1.5, 2.5, 3.5]
    # ADDED FIRST
    # VALUES
    print(list(futures.map(cost, xs)) == plain(xs), len(list(futures.map(drawn, xs))))
    print([each["text"] for each in futures.map(pair, xs, range(9))])
    configs = [{"rate": x, "steps": [1, 2, (3)]} for x in xs]
    print([each[0] for each in futures.map(configured, configs)])
    print([futures.submit(cost, x).result() == cost(x) for x in xs])
    sys.exit(0 if len(xs) > 4 else 3)
"""


def executed(place: Place) -> dict[str, int]:
    """Return how many items each function has done in all lives of the run, according to its status."""
    return {each["name"]: each["done"] for each in place.status()["functions"]}


def test_a_sweep_keeps_its_results_when_values_and_a_call_are_added(place: Place) -> None:
    # Given an unfinished run of a sweep
    path = place.write(SWEEP)
    assert place.rscoop("run", "-q", "-n", "2", path.name).code == 3
    text = path.read_text()

    # When the sweep gets a new first value, one in its middle, and a call before all others
    text = text.replace("# VALUES", "xs = [9.5, 0.5, 1.5, 8.5, 2.5, 3.5]")
    text = text.replace("# ADDED FIRST", "print(futures.submit(len, 'abc').result())")
    path.write_text(text)
    foretold = place.rscoop("resume", "--dry-run", "last").expect()
    done = place.rscoop("resume", "last")

    # Then the answer is that of the present script
    xs = [9.5, 0.5, 1.5, 8.5, 2.5, 3.5]
    lines = done.expect().splitlines()[-5:]
    assert lines == [
        "3", "True 6", str([f"{x:.2f}/{n}" for n, x in enumerate(xs)]), str(xs), str([True] * 6),
    ], str(done)  # fmt: skip
    # And calls that have only moved were not computed again
    assert "0.1 (cost): 4 results found by function and arguments, and reused" in done.err
    assert "(configured): 4 results found" in done.err
    found = [line for line in done.err.splitlines() if "found by function and arguments" in line]
    assert not any("pair)" in line for line in found), "each pair has another number now"
    assert not any("drawn)" in line for line in found), "what draws is bound to its place"
    assert "results depend only on function and arguments" in foretold
    assert ", 12 from the journal" in done.err, done.err


def test_a_fork_uses_results_of_calls_after_its_point(place: Place) -> None:
    path = place.write(SWEEP)
    assert place.rscoop("run", "-q", "-n", "2", path.name).code == 3

    place.rscoop("fork", "last", "--at", "0.0").expect()
    path.write_text(path.read_text().replace("# VALUES", "xs = [7.5, *xs]"))
    done = place.rscoop("resume", "last")

    assert done.expect().splitlines()[0] == "True 5", str(done)
    assert "0.0 (cost): 4 results found by function and arguments, and reused" in done.err


def test_a_call_with_a_side_effect_is_computed_again_at_its_new_position(place: Place) -> None:
    path = place.write(
        """
        import sys
        from resilient_scoop import futures

        def noted(x):
            with open("ledger", "a") as file: file.write(f"{x}\\n")
            return x

        if __name__ == "__main__":
            print(list(futures.map(noted, [1, 2])))
            sys.exit(3)
        """
    )
    place.rscoop("run", "-q", "-n", "1", path.name)
    path.write_text(path.read_text().replace("[1, 2]", "[0, 1, 2]").replace("sys.exit(3)", ""))

    assert place.rscoop("resume", "-q", "last").expect().splitlines()[-1] == "[0, 1, 2]"
    assert sorted(ledger(place)) == ["0", "1", "1", "2", "2"]
