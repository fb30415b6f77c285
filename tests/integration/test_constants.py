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


EDITED = """
import os
from resilient_scoop import futures, shared
def twice(x): return 2 * x
class Model:
    def run(self, x): return x + 1
def use(x): return shared.getConst("factor")(x), shared.getConst("model").run(x)
if __name__ == "__main__":
    shared.setConst(factor=twice, model=Model())
    print(list(futures.map(use, range(2))))
    if not os.path.exists("go"): raise SystemExit(5)
"""


@pytest.mark.parametrize(
    ("old", "new", "name"), [("2 * x", "3 * x", "factor"), ("x + 1", "x + 2", "model")]
)
def test_a_constant_whose_code_was_edited_is_refused_by_name(
    place: Place, old: str, new: str, name: str
) -> None:
    place.run(EDITED).expect(5)
    place.write(EDITED.replace(old, new))
    (place.folder / "go").touch()

    refused = place.rscoop("resume", "-q", "last")
    assert refused.code == 75
    assert f"the constant '{name}' already has another value" in refused.err
    assert "--reuse-changed" in refused.err

    kept = place.rscoop("resume", "last", "--reuse-changed")
    kept.expect()
    assert "2 results, 2 from the journal" in kept.err


def test_a_constant_whose_code_was_not_edited_is_the_same(place: Place) -> None:
    place.run(EDITED).expect(5)
    place.write(EDITED.replace("2 * x", "2*x  # twice"))
    (place.folder / "go").touch()
    assert "2 from the journal" in place.rscoop("resume", "last").err
