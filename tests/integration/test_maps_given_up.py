"""Maps that are left halfway: items that have not begun are canceled, begun items end, nothing is kept."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.integration.killed import killed_at, resumed
from tests.integration.runs import Place, ledger

pytestmark = pytest.mark.real

WAYS = """
import gc, itertools, time
from resilient_scoop import futures
def nap(x):
    with open("ledger", "a") as file:
        file.write(f"{x}\\n")
    time.sleep(0.15)
    if x % 100 == 7:
        raise ValueError(x)
    return x
def first(base):
    return next(futures.map(nap, range(base, base + 40)))
def broken_off(base):
    for value in futures.map_as_completed(nap, range(base, base + 40)):
        return base <= value < base + 40
def closed(base):
    values = futures.map(nap, range(base, base + 40))
    taken = [next(values), next(values)]
    values.close()
    return taken
def failed(base):
    try:
        return list(futures.map(nap, [base, base + 7, *range(base + 20, base + 60)]))
    except ValueError as error:
        return str(error)
def late(base):
    try:
        return list(futures.map(nap, range(base, base + 40), timeout=0.2))
    except TimeoutError:
        return "late"
class Cycle:
    def __init__(self, values):
        self.me, self.values = self, values
        next(values)
def collected(base):
    Cycle(futures.map(nap, range(base, base + 40)))
    gc.collect()
    return "collected"
if __name__ == "__main__":
    list(futures.map(abs, range(4)))
    began = time.monotonic()
    ways = first, broken_off, closed, failed, late, collected
    print([way(1000 * n) for n, way in enumerate(ways)])
    print(futures.submit(first, 20000).result(), futures.submit(failed, 30000).result())
    print(time.monotonic() - began < 8)
"""


def test_the_rest_of_a_map_is_not_computed_in_whatever_way_the_map_is_left(place: Place) -> None:
    done = place.run(WAYS)

    output, nested, quick = done.expect().splitlines()
    assert output == "[0, True, [2000, 2001], '3007', 'late', 'collected']"
    assert (nested, quick) == ("20000 30007", "True")
    begun = Counter(int(line) // 1000 for line in ledger(place))
    assert len(begun) == 8
    assert max(begun.values()) <= 12, begun  # of 40: the workers held some of each
    assert place.status()["in_flight"] == 0
    assert "0.1[39] nap: given up\n" in place.rscoop("why", "last", "0.1[39]").expect()
    assert "other items were not computed" in place.rscoop("why", "last", "0.1").expect()


def test_an_unread_map_is_computed_and_an_endless_one_dropped(place: Place) -> None:
    done = place.run("""
        import itertools
        from resilient_scoop import futures
        def note(x):
            with open("ledger", "a") as file:
                file.write(f"{x}\\n")
        def same(x): return x
        def calls():
            from resilient_scoop.processes.here import Process
            return len(Process.session.context.parent.calls.open)
        def leaves(n):
            for k in range(n):
                futures.map(same, itertools.count(), buffersize=8)
                next(futures.map(same, range(100)))
                next(futures.map_as_completed(same, itertools.count(), buffersize=64))
            return calls() < 30
        if __name__ == "__main__":
            futures.map(note, range(20))
            print(leaves(60), futures.submit(leaves, 40).result())
            values = futures.map_as_completed(same, range(20_000))
            total = sum(next(values) for _ in range(19_000))
            held = sum(len(chunk.values) for chunk in values.gi_frame.f_locals["call"].chunks)
            print(held <= 1000)
    """)

    assert done.expect().splitlines() == ["True True", "True"]
    assert sorted(map(int, ledger(place))) == list(range(20))


COLLECTED_ELSEWHERE = """
import gc, os, time
from resilient_scoop import futures
gc.disable()
def work(x):
    with open("ledger", "a") as file:
        file.write(f"{x}\\n")
    time.sleep(0.005)
    return x
class Cycle:
    def __init__(self, values):
        self.me, self.values = self, values
def glance(base):
    cycle = Cycle(futures.map(work, range(base, base + 40)))
    return next(cycle.values)
if __name__ == "__main__":
    again = os.path.exists("go")
    firsts = []
    for n in range(4):
        firsts.append(glance(1000 * n))
        if n % 2 != again:
            gc.collect()  # in another life it comes at another moment
        done, _ = futures.wait({futures.submit(work, 100_000 + n)})
        firsts += [f.result() for f in done]
    if not again:
        gc.collect()
        list(futures.map(work, range(200_000, 200_004)))
        open("enough", "w").close()
        time.sleep(30)
    list(futures.map(work, range(200_000, 200_004)))
    print(firsts)
"""


def test_a_resume_recomputes_nothing_whenever_the_garbage_collector_runs(place: Place) -> None:
    killed_at(place, COLLECTED_ELSEWHERE, "enough")
    before = Counter(ledger(place))
    (place.folder / "go").touch()

    done = resumed(place)

    expected = [n for k in range(4) for n in (1000 * k, 100_000 + k)]
    assert done.expect() == f"{expected}\n"
    again = Counter(ledger(place)) - before
    assert not [x for x in again if x in before], again
    assert "diverge" not in done.err
    assert place.rscoop("replay", "last").code == 0
    report = place.status()
    assert (report["in_flight"], report["done"]) == (0, report["done"])


READS_ON = """
import os, time
from resilient_scoop import futures
def work(x):
    time.sleep(0.01)
    return x * x
if __name__ == "__main__":
    total = 0
    for value in futures.map(work, range(60)):
        total += value
        if STOP and value >= 9:
            break
    print(sum(futures.map(work, range(3))))
    if STOP:
        open("enough", "w").close()
        time.sleep(30)
    print(total)
"""


def test_a_changed_script_that_continues_to_read_a_map_gets_the_values(place: Place) -> None:
    killed_at(place, "STOP = True" + READS_ON, "enough")
    place.write("STOP = False" + READS_ON)

    done = resumed(place)

    assert done.expect().splitlines()[-1] == str(sum(n * n for n in range(60)))
