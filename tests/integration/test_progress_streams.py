"""Random streams of long calls continue from the saved state, in whatever way the calls obtain them."""

from __future__ import annotations

import pytest

from tests.integration.runs import Place

pytestmark = pytest.mark.real

SCRIPT = """
import os, random
from resilient_scoop import futures

def fail_once(name, at, when):
    if at == when and not os.path.exists("calm"):
        flag = f"failed-{name}-{when}"
        if not os.path.exists(flag):
            open(flag, "w").close()
            raise RuntimeError(name)

def before(when):
    r = futures.rng()
    at, place = futures.task_info().resume or (0, 0.0)
    while at < 6:
        fail_once("before", at, when)
        place, at = place + r.random(), at + 1
        futures.progress(at, 6, resume=(at, place))
    return place

def after(when):
    at, place = futures.task_info().resume or (0, 0.0)
    r, s = futures.rng(), futures.rng()
    while at < 6:
        fail_once("after", at, when)
        place, at = place + r.random() * s.random(), at + 1
        futures.progress(at, 6, resume=(at, place))
    return place

def each(when):
    at, place = futures.task_info().resume or (0, 0.0)
    while at < 6:
        fail_once("each", at, when)
        place, at = place + futures.rng().random(), at + 1
        futures.progress(at, 6, resume=(at, place))
    return place

def held(when):
    at, place = futures.task_info().resume or (0, 0.0)
    while at < 6:
        fail_once("held", at, when)
        r = futures.rng()
        place, at = place + r.random(), at + 1
        futures.progress(at, 6, resume=(at, place))
    return place

def mixed(when):
    first = futures.rng()
    at, place = futures.task_info().resume or (0, 0.0)
    while at < 6:
        fail_once("mixed", at, when)
        named = futures.rng("named")
        own = futures.rng()
        place, at = place + first.random() * named.random() * own.random() * random.random(), at + 1
        futures.progress(at, 6, resume=(at, place))
    return place

if __name__ == "__main__":
    for function in (before, after, each, held, mixed):
        for when in range(1, 6):
            print(function.__name__, when, futures.options(retries=1).submit(function, when).result())
"""
LATE = """
import os
from resilient_scoop import futures

def late(x):
    at, place = futures.task_info().resume or (0, 0.0)
    import numpy
    while at < 4:
        place, at = place + float(numpy.random.random()), at + 1
        futures.progress(at, 4, resume=(at, place))
        if at == 2 and not os.path.exists("calm"):
            open("calm", "w").close()
            import time
            time.sleep(1.5)
            futures.progress(at, 4, resume=(at, place))
            time.sleep(0.5)
            os.kill(os.getpid(), 9)
    return place

if __name__ == "__main__":
    print(futures.submit(late, 1).result())
"""


@pytest.mark.parametrize("text", [SCRIPT, LATE], ids=["streams", "numpy imported late"])
def test_all_streams_continue_from_the_saved_payload(place: Place, text: str) -> None:
    place.write(text)
    disturbed = place.rscoop("run", "-q", "-n", "2", "--seed", "3", "script.py").expect()
    (place.folder / "calm").touch()
    calm = place.rscoop("run", "-q", "-n", "2", "--seed", "3", "script.py").expect()
    assert disturbed.splitlines() == calm.splitlines()
