"""Strict replays whose divergence is caught by the code that diverged: no wait hangs."""

from __future__ import annotations

import pytest

from tests.integration.runs import Place

pytestmark = pytest.mark.real

CAUGHT = """
import os
from resilient_scoop import futures

def leaf(x):
    return x

def catching(changed):
    future = None
    for _ in range(2):
        try:
            future = future or futures.submit(leaf, 2 if changed else 1)
            future.result()
        except Exception as error:
            with open("caught", "a") as file: print(type(error).__name__, file=file)
    return 7
"""
SCRIPT = (
    CAUGHT
    + """
if __name__ == "__main__":
    changed = os.path.exists("changed")
    catching(changed)
    if not changed:
        raise RuntimeError("to be resumed")
"""
)
NESTED = (
    CAUGHT
    + """
def outer(x):
    first = not os.path.exists("changed")
    open("changed", "w").close()
    catching(not first)
    if first:
        os.kill(os.getpid(), 9)
    return 8

if __name__ == "__main__":
    print(futures.submit(outer, 0).result())
"""
)


def test_a_script_that_catches_a_divergence_and_waits_again_is_refused(place: Place) -> None:
    place.run(SCRIPT).expect(1)
    (place.folder / "changed").touch()
    done = place.rscoop("resume", "-q", "--strict", "last")
    done.expect(70)
    assert (place.folder / "caught").read_text() == "ReplayDivergedError\n" * 2
    assert "its arguments differ" in done.err
    place.assert_nothing_left()


def test_a_task_that_catches_a_divergence_and_waits_again_fails_with_it(place: Place) -> None:
    place.write(NESTED)
    done = place.rscoop("run", "-q", "-n", "2", "--strict", "script.py")
    done.expect(70)
    assert (place.folder / "caught").read_text() == "ReplayDivergedError\n" * 2
    assert "its arguments differ" in done.err
