"""Constants over several lives of a run: an equal value is the same constant, whatever its type."""

from __future__ import annotations

import pytest

from tests.integration.runs import Place

pytestmark = pytest.mark.real

SCRIPT = """
import os, sys
from dataclasses import dataclass, field
from pathlib import Path
import numpy
from resilient_scoop import futures, shared

@dataclass
class Model:
    name: str
    weights: dict = field(default_factory=dict)
    seen: set = field(default_factory=set)

def scaled_by(factor):
    return lambda x: factor * x

def values(extra):
    words = {f"word {n}" for n in range(500)} | {extra}
    return {
        "words": words,
        "large": {"table": numpy.arange(300_000.0), "names": set(words)},
        "scale": scaled_by(3),
        "model": Model("m", {"w": numpy.ones((400, 400)), "b": [1.5, None]}, {(1, "x"), (2, "y")}),
        "text": "x" * 3_000_000,
        "nested": [frozenset({1, 2}), {"k": (1, 2.5, b"raw")}, numpy.float32(2.5)],
    }

def use(x):
    large, model = shared.getConst("large"), shared.getConst("model")
    return [shared.getConst("scale")(x), len(shared.getConst("words")), float(large["table"][x]),
            float(model.weights["w"].sum()), len(model.seen), len(shared.getConst("text"))]

def set_in_task(x):
    shared.setConst(**values("extra"))
    return x

if __name__ == "__main__":
    life = len(list(Path().glob("life*")))
    Path(f"life{life}").touch()
    shared.setConst(**values("other" if len(sys.argv) > 1 and life else "extra"))
    print(list(futures.map(use, range(3))), flush=True)
    if not life:
        os.kill(os.getpid(), 9)
    shared.setConst(**values("extra"))  # equal once more
    print("again", futures.submit(set_in_task, 1).result(), len(list(futures.map(use, range(5)))))
"""


def test_constants_of_all_sizes_and_kinds_are_the_same_after_a_resume(place: Place) -> None:
    done = place.run(SCRIPT)

    rows = [[3 * n, 501, float(n), 160000.0, 2, 3_000_000] for n in range(3)]
    assert done.expect().splitlines() == [str(rows), "again 1 5"], str(done)
    # And a constant that was set again has left no file.
    (run,) = place.runs()
    assert len(list((run / "payloads").glob("res-*"))) == 3


def test_a_constant_that_differs_after_a_resume_is_refused_by_name(place: Place) -> None:
    path = place.write(SCRIPT)

    done = place.rscoop("run", "-q", "-n", "1", path.name, "differs")

    assert done.code == 75, str(done)
    assert "the constant 'words' already has another value" in done.err
